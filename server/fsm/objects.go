package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Bounds of tables that users fill.
const (
	maxObjects = 10000
	// maxApply is how many objects one request may hold.
	maxApply = 1000
)

// validName reports whether s is a DNS label of lower case (RFC 1123 section 2.1).
func validName(s string) bool {
	if len(s) == 0 || len(s) > maxName || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func checkName(kind, name string) *errs.Error {
	if validName(name) {
		return nil
	}
	return errs.New(errs.Invalid, "%q is not a name for a %s", clip(name, maxName), kind).
		WithHint("a name is a DNS label: a-z, 0-9 and dashes, at most %d characters", maxName)
}

// applyObjects writes all objects, then checks what they refer to: the order within one request does not matter.
func (a *applier) applyObjects(objects []*provisionrv1.Object, uids []string) *errs.Error {
	if len(objects) > maxApply {
		return errs.New(errs.Exhausted, "%d objects in one request: the most is %d", len(objects), maxApply)
	}
	// What names belong to is written first, so that pools find their zones and networks.
	rank := func(o *provisionrv1.Object) int {
		switch o.GetKind().(type) {
		case *provisionrv1.Object_User:
			return 0
		case *provisionrv1.Object_Token:
			return 1
		case *provisionrv1.Object_Provider:
			return 2
		case *provisionrv1.Object_Network, *provisionrv1.Object_Zone, *provisionrv1.Object_Vpn:
			return 3
		}
		return 4
	}
	for pass := range 5 {
		for i, o := range objects {
			if rank(o) != pass {
				continue
			}
			uid := fmt.Sprintf("u-%d-%d-%d-%d", a.version.GetIncarnation(), a.version.GetIndex(), a.version.GetSub(), i)
			if i < len(uids) && uids[i] != "" {
				uid = clip(uids[i], maxName)
			}
			if err := a.applyObject(o, uid); err != nil {
				return err
			}
		}
	}
	return a.checkReferences(objects)
}

func (a *applier) applyObject(o *provisionrv1.Object, uid string) *errs.Error {
	switch kind := o.GetKind().(type) {
	case *provisionrv1.Object_Pool:
		return a.applyPool(kind.Pool, uid)
	case *provisionrv1.Object_Zone:
		return a.applyZone(kind.Zone, uid)
	case *provisionrv1.Object_Network:
		return a.applyNetwork(kind.Network, uid)
	case *provisionrv1.Object_Provider:
		return a.applyProvider(kind.Provider, uid)
	case *provisionrv1.Object_User:
		return a.applyUser(kind.User, uid)
	case *provisionrv1.Object_Token:
		return a.applyToken(kind.Token, uid)
	case *provisionrv1.Object_Vpn:
		return a.applyVpn(kind.Vpn, uid)
	case *provisionrv1.Object_VpnPeer:
		return a.applyVpnPeer(kind.VpnPeer, uid)
	case nil:
		return errs.New(errs.Invalid, "an object holds nothing")
	}
	return errs.New(errs.Invalid, "machines, slots, address claims, events, members and secrets cannot be applied").
		WithHint("apply pools, zones, networks, vpns, vpn peers, providers and users")
}

// change says what merge found.
type change int

const (
	unchanged change = iota
	created
	respecified
	relabelled
)

// merge completes the metadata of an object that is applied over the present one. Missing objects have nil metadata.
func (a *applier) merge(kind string, wanted, present *provisionrv1.Metadata, uid string, sameSpec bool) (change, *provisionrv1.Metadata, *errs.Error) {
	name := wanted.GetName()
	if err := checkName(kind, name); err != nil {
		return 0, nil, err
	}
	if v := wanted.GetVersion(); v != nil && !proto.Equal(v, present.GetVersion()) {
		return 0, nil, errs.New(errs.Conflict, "%s %s has changed since it was read", kind, name).WithHint("read it again and repeat the change")
	}
	m := &provisionrv1.Metadata{Name: name, Labels: wanted.GetLabels(), Annotations: wanted.GetAnnotations(), Version: a.version}
	if present == nil {
		m.Uid, m.Generation, m.Created = uid, 1, a.now
		return created, m, nil
	}
	if present.GetDeleted() != nil {
		return 0, nil, errs.New(errs.Conflict, "%s %s is being deleted", kind, name).WithHint("wait until it is gone, then apply again")
	}
	m.Uid, m.Generation, m.Created = present.GetUid(), present.GetGeneration(), present.GetCreated()
	if !sameSpec {
		m.Generation++
		return respecified, m, nil
	}
	same := &provisionrv1.Metadata{Labels: present.GetLabels(), Annotations: present.GetAnnotations()}
	if proto.Equal(same, &provisionrv1.Metadata{Labels: m.GetLabels(), Annotations: m.GetAnnotations()}) {
		return unchanged, present, nil
	}
	return relabelled, m, nil
}

// changed records an event for a change that merge found.
func (a *applier) changed(c change, kind, name, pool string) {
	switch c {
	case created:
		a.event(kind+"Created", fmt.Sprintf("%s %s was created", kind, name), false, pool, nil)
	case respecified:
		a.event(kind+"Changed", fmt.Sprintf("%s %s was changed", kind, name), false, pool, nil)
	}
}

// checkReferences checks that what the objects name exists, in the state as it is after all were written.
func (a *applier) checkReferences(objects []*provisionrv1.Object) *errs.Error {
	for _, o := range objects {
		if n := o.GetNetwork(); n != nil {
			if p := n.GetSpec().GetProvider(); p != "" && a.Provider(p) == nil {
				return errs.New(errs.Invalid, "network %s names provider %s, which does not exist", n.GetMetadata().GetName(), clip(p, maxName))
			}
		}
		p := o.GetPool()
		if p == nil {
			continue
		}
		name := p.GetMetadata().GetName()
		if provider := state.ProviderName(p); a.Provider(provider) == nil {
			return errs.New(errs.Invalid, "pool %s names provider %s, which does not exist", name, clip(provider, maxName))
		}
		// Below level 3 members of the version before do not know the field: what they take, all must.
		if vpn := p.GetSpec().GetVpn(); vpn != nil && a.level() >= 3 && a.Vpn(vpn.GetName()) == nil {
			return errs.New(errs.Invalid, "pool %s names vpn %s, which does not exist", name, clip(vpn.GetName(), maxName))
		}
		network := a.NetworkOf(p)
		if network == nil && p.GetSpec().GetNetwork() != "" {
			return errs.New(errs.Invalid, "pool %s names network %s, which does not exist", name, clip(p.GetSpec().GetNetwork(), maxName))
		}
		if owner := network.GetSpec().GetProvider(); owner != "" && owner != state.ProviderName(p) {
			return errs.New(errs.Invalid, "pool %s is of provider %s, its network %s of provider %s",
				name, state.ProviderName(p), network.GetMetadata().GetName(), owner)
		}
	}
	return nil
}

func (a *applier) deleteObject(kind, name string) *errs.Error {
	var err *errs.Error
	switch kind {
	case "pools":
		return a.deletePool(name)
	case "machines":
		return a.deleteMachine(name)
	case "zones":
		err = a.deleteZone(name)
	case "networks":
		err = a.deleteNetwork(name)
	case "providers":
		err = a.deleteProvider(name)
	case "users":
		err = a.deleteUser(name)
	case "tokens":
		err = a.deleteToken(name)
	case "vpns":
		err = a.deleteVpn(name)
	case "vpn-peers":
		err = a.deleteVpnPeer(name)
	case "secrets":
		err = a.deleteSecret(name)
	default:
		return errs.New(errs.Invalid, "objects of kind %q cannot be deleted", clip(kind, maxName)).
			WithHint("kinds are pools, machines, zones, networks, providers, users, tokens, vpns, vpn-peers and secrets")
	}
	if err == nil {
		a.event("Deleted", fmt.Sprintf("%s %s was deleted", kind[:len(kind)-1], name), false, "", nil)
	}
	return err
}

func notFound(kind, name string) *errs.Error {
	return errs.New(errs.NotFound, "%s %s does not exist", kind, clip(name, 4*maxName))
}

func inUse(kind, name, by string) *errs.Error {
	return errs.New(errs.Conflict, "%s %s is in use by %s", kind, name, by).WithHint("delete %s first", by)
}
