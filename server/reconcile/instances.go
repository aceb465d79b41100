package reconcile

import (
	"slices"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// duplicated says that a machine has an instance that lives, and others.
func (p *planner) duplicated(m *provisionrv1.Machine) bool {
	return len(p.Listings[m.GetSpec().GetProvider()].Duplicates[m.GetMetadata().GetName()]) > 0
}

// prune plans that one living instance of a machine is left: the recorded one, else the one with the lowest id.
func (p *planner) prune(m *provisionrv1.Machine) {
	id := m.GetMetadata().GetName()
	listing := p.Listings[m.GetSpec().GetProvider()]
	if pruned, ok := p.Pruned[id]; ok && !listing.Started.After(pruned) {
		return
	}
	keep := listing.Duplicates[id][0]
	if recorded := m.GetStatus().GetProviderId(); slices.Contains(listing.Duplicates[id], recorded) {
		keep = recorded
	}
	p.add(Action{Op: Prune, Machine: id, Provider: m.GetSpec().GetProvider(), ProviderID: keep})
}

// identify has recorded which instance a machine is where the one that was recorded is not the one that is left of several.
func (p *planner) identify(m *provisionrv1.Machine) {
	id, status := m.GetMetadata().GetName(), m.GetStatus()
	listing := p.Listings[m.GetSpec().GetProvider()]
	instance, listed := listing.Instances[id]
	if !listing.Known || !listed || !live(instance) || instance.ProviderID == "" || instance.ProviderID == status.GetProviderId() {
		return
	}
	if pruned, ok := p.Pruned[id]; ok && !listing.Started.After(pruned) {
		return
	}
	set := setPhase(m, status.GetPhase(), status.GetReason(), time.Time{})
	set.Deadline, set.ProviderId = status.GetDeadline(), instance.ProviderID
	if !p.Snapshot.Network(m.GetSpec().GetNetwork()).GetSpec().GetManaged() && instance.Address.IsValid() {
		set.Address, set.Address6 = instance.Address.Unmap().String(), address6(p.Snapshot, instance)
	}
	p.add(Action{Op: Identify, Machine: id, ProviderID: instance.ProviderID, Phase: set})
}

// refused says that the provider has made nothing for the machine's present launch attempt, and that nothing shows that it has
// all the same: its answer may have been about a repetition of a call that acted.
func (p *planner) refused(m *provisionrv1.Machine) bool {
	attempt, ok := p.Refused[m.GetMetadata().GetName()]
	return ok && attempt == m.GetStatus().GetAttempt() && !called(m) && !p.Listings[m.GetSpec().GetProvider()].running(m.GetMetadata().GetName())
}

// called says that a machine has called a server in its present launch attempt.
func called(m *provisionrv1.Machine) bool {
	return m.GetStatus().GetBootStage() != "" || m.GetStatus().GetKeyFingerprint() != ""
}

// address6 is the IPv6 address of an instance beside an IPv4 one, as far as the cluster keeps such.
func address6(s *state.Snapshot, i provider.Instance) string {
	if !i.Address6.IsValid() || !manages(s) {
		return ""
	}
	return i.Address6.String()
}
