package api

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/auth"
	"github.com/provisionr/provisionr/server/state"
)

type manifestService struct {
	provisionrv1.UnimplementedManifestServiceServer
	*base
}

// Actions of a change.
const (
	actionCreate = "create"
	actionUpdate = "update"
	actionNone   = "none"
)

func (s *manifestService) Plan(ctx context.Context, req *provisionrv1.PlanRequest) (*provisionrv1.PlanResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	changes, err := plan(snapshot, req.Objects)
	if err != nil {
		return nil, err
	}
	// Why it cannot be is in the changes.
	_ = s.ask(ctx, snapshot, req.Objects, changes)
	return &provisionrv1.PlanResponse{Changes: changes, Version: snapshot.Version()}, nil
}

func (s *manifestService) Apply(ctx context.Context, req *provisionrv1.ApplyRequest) (*provisionrv1.ApplyResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	if err := mayApply(auth.CallerOf(ctx), req.Objects); err != nil {
		return nil, err
	}
	changes, err := plan(snapshot, req.Objects)
	if err != nil {
		return nil, err
	}
	if err := s.ask(ctx, snapshot, req.Objects, changes); err != nil {
		return nil, err
	}
	// Nothing to change is still proposed: a precondition may fail, and a request id must be remembered.
	cmd := applyObjects(req.Objects)
	version, err := s.write(ctx, req.RequestId, &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: cmd}})
	if err != nil {
		return nil, err
	}
	return &provisionrv1.ApplyResponse{Changes: changes, Version: version}, nil
}

// applyObjects is the command that applies what a manifest holds.
func applyObjects(objects []*provisionrv1.Object) *raftlogv1.ApplyObjects {
	cmd := &raftlogv1.ApplyObjects{Objects: stripped(objects)}
	for range objects {
		cmd.Uids = append(cmd.Uids, newID())
	}
	return cmd
}

// mayApply refuses objects that need a higher role than the method: an operator who could write users would be an admin.
func mayApply(caller *provisionrv1.Caller, objects []*provisionrv1.Object) error {
	if caller.GetRole() >= provisionrv1.Role_ROLE_ADMIN {
		return nil
	}
	for _, o := range objects {
		if o.GetPool() == nil && o.GetVpnPeer() == nil {
			return errs.New(errs.Denied, "cannot apply %s %q: it needs the role admin", spec.KindOf(o), spec.Name(o)).
				WithHint("operators apply pools and vpn peers; ask an admin for the rest")
		}
	}
	return nil
}

// stripped returns the objects without what is output only, but for the version, which is a precondition.
func stripped(objects []*provisionrv1.Object) []*provisionrv1.Object {
	out := make([]*provisionrv1.Object, len(objects))
	for i, o := range objects {
		o = proto.CloneOf(o)
		if m := spec.Metadata(o); m != nil {
			m.Uid, m.Generation, m.Created, m.Deleted = "", 0, nil, nil
		}
		if p := o.GetPool(); p != nil {
			p.Status = nil
		}
		if n := o.GetNetwork(); n != nil {
			n.Written = nil
		}
		if p := o.GetVpnPeer(); p != nil {
			p.Address = ""
		}
		out[i] = o
	}
	return out
}

// prepare fills in defaults and checks objects by all rules that need no state. The objects are the request's own.
func prepare(objects []*provisionrv1.Object) error {
	for _, o := range objects {
		spec.Default(o)
	}
	return spec.ValidateAll(objects, spec.Options{})
}

// plan says what applying the objects would change at the snapshot.
func plan(snapshot *state.Snapshot, objects []*provisionrv1.Object) ([]*provisionrv1.Change, error) {
	if err := own(snapshot, objects); err != nil {
		return nil, err
	}
	if err := spec.ValidateAll(objects, spec.Options{Known: knownIn(snapshot), Provider: snapshot.Provider}); err != nil {
		return nil, err
	}
	var changes []*provisionrv1.Change
	for _, o := range objects {
		c := &provisionrv1.Change{Action: actionNone, Kind: spec.KindOf(o), Name: spec.Name(o)}
		before := present(snapshot, c.Kind, c.Name)
		if at := spec.Metadata(before).GetDeleted(); at != nil {
			return nil, errs.New(errs.Conflict, "cannot change %s %q: it is being deleted", c.Kind, c.Name).
				WithHint("wait until it is gone, or choose another name")
		}
		if p := o.GetProvider(); p != nil {
			if err := bound(snapshot, before.GetProvider(), p); err != nil {
				return nil, err
			}
		}
		c.Fields = changedFields(before, o)
		switch {
		case before == nil:
			c.Action = actionCreate
		case len(c.Fields) > 0:
			c.Action = actionUpdate
		}
		if p := o.GetPool(); p != nil && c.Action != actionNone {
			consequences(snapshot, before.GetPool(), p, c)
		}
		if z := o.GetZone(); z != nil && c.Action != actionNone {
			zoneConsequences(snapshot, before.GetZone(), z, c)
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// knownIn reports whether there is an object of a manifest's kind, as Pool.
func knownIn(snapshot *state.Snapshot) func(kind, name string) bool {
	return func(kind, name string) bool {
		if kind == "Zone" {
			// Its records, which may be many, would be decoded each time that something refers to it.
			return snapshot.Zone(name) != nil
		}
		return present(snapshot, kind, name) != nil
	}
}

// present returns the object of a manifest's kind, as Pool, or nil.
func present(snapshot *state.Snapshot, kind, name string) *provisionrv1.Object {
	switch kind {
	case "Pool":
		return object(snapshot.Pool(name))
	case "Zone":
		return object(snapshot.WholeZone(name))
	case "Network":
		return object(snapshot.Network(name))
	case "Provider":
		return object(snapshot.Provider(name))
	case "User":
		return object(snapshot.User(name))
	case "Vpn":
		return object(snapshot.Vpn(name))
	case "VpnPeer":
		return object(snapshot.VpnPeer(name))
	}
	return nil
}

// changedFields lists what a user changes: what others have added to the present object does not count.
func changedFields(before, after *provisionrv1.Object) []*provisionrv1.FieldChange {
	if n := before.GetNetwork(); n.GetWritten() != nil {
		n = proto.CloneOf(n)
		n.Spec = n.GetWritten()
		before = object(n)
	}
	return spec.Diff(before, after)
}

// object wraps a row; no row gives no object.
func object[T comparable](row T) *provisionrv1.Object {
	var none T
	if row == none {
		return nil
	}
	return state.ObjectOf(row)
}
