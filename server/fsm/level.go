package fsm

import (
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
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
	for _, o := range objects {
		if poolNeeds(o.GetPool().GetSpec()) || networkNeeds(o.GetNetwork()) || providerNeeds(o.GetProvider().GetSpec()) {
			return 2
		}
	}
	return 1
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

// level is the cluster's committed feature level.
func (a *applier) level() uint32 { return max(1, a.Cluster().GetFeatureLevel()) }
