package fsm

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Needs returns the least feature level that understands a command with all that it says. Whoever proposes it stamps the
// request with that level, so that a cluster with members of an older version refuses it before it is in the log.
func Needs(c *raftlogv1.Command) uint32 {
	if objects := c.GetApplyObjects().GetObjects(); objects != nil {
		return objectsNeed(objects)
	}
	if objects := c.GetInitCluster().GetObjects(); objects != nil {
		return objectsNeed(objects)
	}
	return needs(c)
}

// needs is what applying a command takes. What objects say is not looked at: members of the older version keep what they do
// not know, so only proposers can refuse it.
func needs(c *raftlogv1.Command) uint32 {
	switch kind := c.GetKind().(type) {
	case *raftlogv1.Command_PutZoneKey, *raftlogv1.Command_RemoveZoneKey:
		return state.LevelNames
	case *raftlogv1.Command_PutSecret, *raftlogv1.Command_BeginReboot:
		return 3
	case *raftlogv1.Command_ReportMachine:
		if kind.ReportMachine.GetFacts() != nil {
			return 3
		}
	case *raftlogv1.Command_PutAuthority:
		if kind.PutAuthority.GetAuthority().GetPurpose() != "" {
			return 3
		}
	case *raftlogv1.Command_PutSealedKey:
		if len(kind.PutSealedKey.GetZoneKeys()) > 0 {
			return state.LevelNames
		}
		if len(kind.PutSealedKey.GetSecrets()) > 0 {
			return 3
		}
	case *raftlogv1.Command_DeleteObject:
		if slices.Contains([]string{"vpns", "vpn-peers", "secrets"}, kind.DeleteObject.GetKind()) {
			return 3
		}
	case *raftlogv1.Command_HandOver, *raftlogv1.Command_RecordNotice, *raftlogv1.Command_AdoptMachine:
		return 2
	case *raftlogv1.Command_CreateMachine:
		if kind.CreateMachine.GetHeir() {
			return 2
		}
	case *raftlogv1.Command_SetPhase:
		if kind.SetPhase.GetAddress6() != "" {
			return 2
		}
	}
	return 1
}

func objectsNeed(objects []*provisionrv1.Object) uint32 {
	need := uint32(1)
	for _, o := range objects {
		switch {
		case namesNeed(o):
			return state.LevelNames
		case o.GetVpn() != nil || o.GetVpnPeer() != nil, o.GetPool() != nil && poolNeedsThree(o.GetPool()),
			o.GetNetwork() != nil && saysNew(o.GetNetwork().GetSpec().ProtoReflect()):
			need = 3
		case need < 3 && (poolNeeds(o.GetPool().GetSpec()) || networkNeeds(o.GetNetwork()) || providerNeeds(o.GetProvider().GetSpec())):
			need = 2
		}
	}
	return need
}

// namesNeed reports whether an object says of names what servers below [state.LevelNames] do not know.
func namesNeed(o *provisionrv1.Object) bool {
	pool, zone := o.GetPool().GetSpec(), o.GetZone().GetSpec()
	return len(pool.GetRecords())+len(pool.GetEndpoints()) > 0 || o.GetNetwork().GetSpec().GetReverse() != "" ||
		zone.GetTransfer() != nil || zone.GetDnssec() != "" ||
		slices.ContainsFunc(zone.GetRecords(), func(r *provisionrv1.StaticRecord) bool {
			return !validName(r.GetName()) || r.GetCname() != "" || len(r.GetText())+len(r.GetServices())+len(r.GetCaa()) > 0
		})
}

func poolNeeds(s *provisionrv1.PoolSpec) bool {
	h := s.GetHardware()
	return s.GetImage() != nil || s.GetPlacement() != nil || s.GetSpot() != nil || s.GetSafety().GetMaxSurge() > 0 ||
		len(h.GetTypes()) > 0 || h.GetArchitecture() != "" || h.GetRootDisk() != nil || len(h.GetDisks()) > 0
}

func networkNeeds(n *provisionrv1.Network) bool {
	s := n.GetSpec()
	return s != nil && (s.GetCidr() == "" || s.GetId() != "" || len(s.GetSubnets()) > 0 || n.GetWritten() != nil)
}

func providerNeeds(s *provisionrv1.ProviderSpec) bool {
	return s != nil && s.GetLocal() == nil
}

// poolNeedsThree reports whether a pool says what servers of level 2 do not know: in fields, or in words of fields that they
// have.
func poolNeedsThree(p *provisionrv1.Pool) bool {
	s := p.GetSpec()
	for _, r := range s.GetFirewall().GetRules() {
		for _, from := range r.GetFrom() {
			if from == "vpn" || strings.HasPrefix(from, "role:") || strings.HasPrefix(from, "machine:") {
				return true
			}
		}
	}
	distribution := s.GetOs().GetDistribution()
	return distribution != "" && distribution != "debian" || len(state.SecretsOf(p)) > 0 || saysNew(s.ProtoReflect())
}

// saysNew reports whether a part of a specification has a field of level 3. A message that is new itself is only found in a new
// field.
func saysNew(m protoreflect.Message) (found bool) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case isNew(f):
			found = f.FullName() != "provisionr.v1.PoolSpec.mode" || v.String() != "enforce"
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				found = found || saysNew(v.List().Get(i).Message())
			}
		default:
			found = saysNew(v.Message())
		}
		return !found
	})
	return found
}

func isNew(f protoreflect.FieldDescriptor) bool {
	n := f.Number()
	switch f.ContainingMessage().Name() {
	case "PoolSpec":
		return n == 19 || n == 32 || n >= 40
	case "NetworkSpec":
		return n >= 10
	case "UserAccount", "Repository":
		return n >= 6 && f.Name() != "absent"
	case "File":
		return n >= 8
	case "Service":
		return n >= 5
	case "FirewallRule":
		return n == 5
	case "Package", "Firewall":
		return n >= 4
	case "Ntp":
		return n == 3
	case "VerifyPolicy":
		return n == 2
	}
	return false
}

// level is the cluster's committed feature level.
func (a *applier) level() uint32 { return max(1, a.Cluster().GetFeatureLevel()) }

// least refuses what the committed feature level does not have yet.
func (a *applier) least(level uint32, what string) *errs.Error {
	if a.level() >= level {
		return nil
	}
	return errs.New(errs.Unsupported, "%s needs feature level %d, the cluster is at %d", what, level, a.level()).
		WithHint("upgrade all servers: the feature level follows")
}
