package fsm

import (
	"iter"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// count counts the rows of a sequence up to a bound.
func count[T any](rows iter.Seq[T], bound int) (n int) {
	for range rows {
		if n++; n >= bound {
			break
		}
	}
	return n
}

func full(kind string) *errs.Error {
	return errs.New(errs.Exhausted, "there are %d %s: no more are kept", maxObjects, kind)
}

func (a *applier) applyZone(wanted *provisionrv1.Zone, uid string) *errs.Error {
	name := wanted.GetMetadata().GetName()
	present := a.Zone(name)
	same := proto.Equal(state.WithoutRecords(wanted).GetSpec(), present.GetSpec()) && a.Records(name).Same(wanted.GetSpec().GetRecords())
	what, m, err := a.merge("zone", wanted.GetMetadata(), present.GetMetadata(), uid, same)
	if err != nil || what == unchanged {
		return err
	}
	domain := wanted.GetSpec().GetDomain()
	if err := checkDomain(domain); err != nil {
		return err
	}
	for z := range a.Zones() {
		if z.GetSpec().GetDomain() == domain && z.GetMetadata().GetName() != name {
			return errs.New(errs.Conflict, "zone %s has the domain %s already", z.GetMetadata().GetName(), domain)
		}
	}
	if present == nil && count(a.Zones(), maxObjects) >= maxObjects {
		return full("zones")
	}
	if present != nil && present.GetSpec().GetDomain() != domain {
		if pool := a.poolOf(func(p *provisionrv1.Pool) bool { return a.ZoneName(p) == name }); pool != "" {
			return inUse("zone", name, "pool "+pool).WithHint("its domain cannot change while machines have names in it: make another zone")
		}
	}
	zone := &provisionrv1.Zone{ApiVersion: wanted.GetApiVersion(), Kind: wanted.GetKind(), Metadata: m, Spec: wanted.GetSpec()}
	if err := a.claimRecords(present, zone); err != nil {
		return err
	}
	// Its records have their names now; one of a name server is a conflict.
	a.Put(zone)
	for m := range a.Members() {
		if err := a.claimName(state.MemberName(name, m.GetMetadata().GetName())); err != nil {
			return err
		}
	}
	a.names = true
	a.changed(what, "Zone", name, "")
	return nil
}

func (a *applier) claimRecords(present, zone *provisionrv1.Zone) *errs.Error {
	if err := a.checkZoneNames(present, zone); err != nil {
		return err
	}
	for n := range state.ZoneNames(zone) {
		if err := a.claimName(n); err != nil {
			return err
		}
	}
	return nil
}

// maxDomain leaves room for a name within the domain: a whole name has 253 characters at most (RFC 1035 section 2.3.4). One
// that is longer would keep all zones from being built.
const maxDomain = 253 - 1 - maxName

func checkDomain(domain string) *errs.Error {
	bad := errs.New(errs.Invalid, "%q is not a domain", clip(domain, 256)).WithHint("a domain is names with dots between, as provisionr.internal")
	labels := 0
	for label := range splitDomain(domain) {
		if labels++; !validName(label) {
			return bad
		}
	}
	if len(domain) > maxDomain || labels < 2 {
		return bad
	}
	return nil
}

func splitDomain(domain string) iter.Seq[string] {
	return func(yield func(string) bool) {
		start := 0
		for i := 0; i <= len(domain); i++ {
			if i == len(domain) || domain[i] == '.' {
				if !yield(domain[start:i]) {
					return
				}
				start = i + 1
			}
		}
	}
}

// poolOf returns the name of the first pool for which uses is true, or "".
func (a *applier) poolOf(uses func(*provisionrv1.Pool) bool) string {
	for p := range a.Pools() {
		if uses(p) {
			return p.GetMetadata().GetName()
		}
	}
	return ""
}

func (a *applier) deleteZone(name string) *errs.Error {
	zone := a.Zone(name)
	if zone == nil {
		return notFound("zone", name)
	}
	if name == a.DefaultZoneName() {
		return errs.New(errs.Conflict, "zone %s is the cluster's default zone", name)
	}
	if pool := a.poolOf(func(p *provisionrv1.Pool) bool { return a.ZoneName(p) == name }); pool != "" {
		return inUse("zone", name, "pool "+pool)
	}
	for m := range a.Members() {
		a.ReleaseName(state.MemberName(name, m.GetMetadata().GetName()))
	}
	a.Delete(zone)
	a.names = true
	return nil
}

func (a *applier) applyProvider(wanted *provisionrv1.Provider, uid string) *errs.Error {
	name := wanted.GetMetadata().GetName()
	present := a.Provider(name)
	what, m, err := a.merge("provider", wanted.GetMetadata(), present.GetMetadata(), uid, proto.Equal(wanted.GetSpec(), present.GetSpec()))
	if err != nil || what == unchanged {
		return err
	}
	if wanted.GetSpec().GetType() == nil {
		return errs.New(errs.Invalid, "provider %s has no type", name).WithHint("give spec.local")
	}
	if present == nil && count(a.Providers(), maxObjects) >= maxObjects {
		return full("providers")
	}
	if what := state.Moved(present, wanted); present != nil && what != "" && a.level() >= 2 {
		if n := state.MachinesAt(&a.Tx.Snapshot, name); n > 0 {
			return errs.New(errs.Conflict, "%s of provider %s cannot change: it has %d machines, which would not be found any more", what, name, n).
				WithHint("make another provider, and have the pools move to it")
		}
	}
	a.Put(&provisionrv1.Provider{ApiVersion: wanted.GetApiVersion(), Kind: wanted.GetKind(), Metadata: m, Spec: wanted.GetSpec()})
	a.changed(what, "Provider", name, "")
	return nil
}

func (a *applier) deleteProvider(name string) *errs.Error {
	provider := a.Provider(name)
	if provider == nil {
		return notFound("provider", name)
	}
	if pool := a.poolOf(func(p *provisionrv1.Pool) bool { return state.ProviderName(p) == name }); pool != "" {
		return inUse("provider", name, "pool "+pool)
	}
	for n := range a.Networks() {
		if n.GetSpec().GetProvider() == name {
			return inUse("provider", name, "network "+n.GetMetadata().GetName())
		}
	}
	a.Delete(provider)
	return nil
}
