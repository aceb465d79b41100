package api

import (
	"slices"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// own fills in the owners of providers that run on the host of one member, in place, where there is no choice, and refuses
// those that cannot be known.
func own(snapshot *state.Snapshot, objects []*provisionrv1.Object) error {
	var members []string
	for m := range snapshot.Members() {
		members = append(members, m.GetMetadata().GetName())
	}
	for _, o := range objects {
		p := o.GetProvider()
		owner := ownerField(p)
		if owner == nil {
			continue
		}
		before := snapshot.Provider(spec.Name(o))
		switch {
		case *owner == "" && spec.ProviderKind(before) == spec.ProviderKind(p):
			*owner = spec.Owner(before)
		case *owner == "" && len(members) == 1:
			*owner = members[0]
		}
		switch {
		case *owner == "":
			return errs.New(errs.Invalid, "cannot apply Provider %q: spec.%s.owner is missing: it runs on the host of one member", spec.Name(o), spec.ProviderKind(p)).
				WithHint("name one of %s", strings.Join(members, ", "))
		case !slices.Contains(members, *owner) && *owner != spec.Owner(before):
			return errs.New(errs.Invalid, "cannot apply Provider %q: there is no member %q", spec.Name(o), *owner).
				WithHint("name one of %s", strings.Join(members, ", "))
		}
	}
	return nil
}

// ownerField returns where a provider has its owner; nil for one that any member can call.
func ownerField(p *provisionrv1.Provider) *string {
	switch t := p.GetSpec().GetType().(type) {
	case *provisionrv1.ProviderSpec_Local:
		return &t.Local.Owner
	case *provisionrv1.ProviderSpec_Qemu:
		return &t.Qemu.Owner
	case *provisionrv1.ProviderSpec_Sim:
		return &t.Sim.Owner
	}
	return nil
}

// bound refuses changes of a provider by which its machines would be looked for where they are not: they would read as
// absent, be replaced, and run on unseen.
func bound(snapshot *state.Snapshot, before, after *provisionrv1.Provider) error {
	name := after.GetMetadata().GetName()
	what := state.Moved(before, after)
	if before == nil || what == "" {
		return secondLocal(snapshot, after)
	}
	machines := state.MachinesAt(snapshot, name)
	if machines == 0 {
		return secondLocal(snapshot, after)
	}
	return errs.New(errs.Conflict, "cannot change %s of Provider %q: it has %d machines, which would not be found any more", what, name, machines).
		WithHint("make another Provider, and have the pools move to it")
}

// secondLocal refuses another provider of system containers on a host: it would take the first one's for its own.
func secondLocal(snapshot *state.Snapshot, after *provisionrv1.Provider) error {
	if spec.ProviderKind(after) != spec.LocalName {
		return nil
	}
	for p := range snapshot.Providers() {
		if spec.ProviderKind(p) == spec.LocalName && spec.Owner(p) == spec.Owner(after) && p.GetMetadata().GetName() != after.GetMetadata().GetName() {
			return errs.New(errs.Conflict, "cannot apply Provider %q: member %s has the provider %s of kind local already", after.GetMetadata().GetName(), spec.Owner(p), p.GetMetadata().GetName()).
				WithHint("use %s: pools may share a provider", p.GetMetadata().GetName())
		}
	}
	return nil
}
