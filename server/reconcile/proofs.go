package reconcile

import (
	"fmt"
	"maps"
	"slices"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// verdict is what the proofs about a machine amount to.
type verdict int

const (
	// waiting: evidence is missing.
	waiting verdict = iota
	// proven: every assumption holds, for the machine itself and for at least one live peer if there is one.
	proven
	// refuted: an assumption does not hold.
	refuted
)

// judge weighs the newest proofs about a machine. Agents report changes only, so a proof stands until its observer
// reports another outcome, whatever desired state it was made under.
func (p *planner) judge(pool *provisionrv1.Pool, m *provisionrv1.Machine) (verdict, string) {
	id := m.GetMetadata().GetName()
	allowed := pool.GetSpec().GetVerify().GetUnprovable()
	own, wrong := 0, ""
	peers := map[string]string{}
	for proof := range p.Snapshot.Proofs(id) {
		bad := objection(proof, allowed)
		switch {
		case proof.GetObserver() != id:
			if before, seen := peers[proof.GetObserver()]; !seen || before == "" {
				peers[proof.GetObserver()] = bad
			}
		case bad != "":
			if wrong == "" {
				wrong = bad
			}
		default:
			own++
		}
	}
	switch {
	case wrong != "":
		return refuted, wrong
	case own == 0:
		return waiting, "nothing is proven yet"
	}
	bad := ""
	for _, observer := range slices.Sorted(maps.Keys(peers)) {
		peer := p.Snapshot.Machine(observer)
		switch {
		case peer.GetSpec().GetPool() != m.GetSpec().GetPool() || !p.live(peer):
		case peers[observer] == "":
			return proven, ""
		case bad == "":
			bad = fmt.Sprintf("as seen by %s: %s", peer.GetSpec().GetSlot(), peers[observer])
		}
	}
	live := p.livePeers(m.GetSpec().GetPool())
	if p.live(m) {
		live--
	}
	switch {
	case live == 0:
		return proven, ""
	case bad != "":
		return refuted, bad
	}
	return waiting, "no peer has proven it yet"
}

// objection says what speaks against the proof; it is empty for a proof that holds.
func objection(proof *provisionrv1.Proof, unprovable []string) string {
	switch proof.GetState() {
	case provisionrv1.ProofState_PROOF_STATE_PROVEN:
		return ""
	case provisionrv1.ProofState_PROOF_STATE_UNPROVABLE:
		if slices.Contains(unprovable, proof.GetAssumption()) {
			return ""
		}
		return fmt.Sprintf("%s cannot be proven: %s", proof.GetAssumption(), proof.GetFound())
	}
	return fmt.Sprintf("%s: expected %s, found %s", proof.GetAssumption(), proof.GetExpected(), proof.GetFound())
}

// livePeers returns how many machines of a pool could be expected to look at others.
func (p *planner) livePeers(pool string) int {
	n, counted := p.peers[pool]
	if !counted {
		for m := range p.Snapshot.MachinesOf(pool) {
			if p.live(m) {
				n++
			}
		}
		p.peers[pool] = n
	}
	return n
}

// live says whether the machine could be expected to look at its peers.
func (p *planner) live(m *provisionrv1.Machine) bool {
	if m == nil || m.GetMetadata().GetDeleted() != nil || !m.GetStatus().GetSessionSeen() || m.GetStatus().GetQuarantined() != "" {
		return false
	}
	switch m.GetStatus().GetPhase() {
	case converging, ready, degraded:
		seen, known := p.Presence[m.GetMetadata().GetName()]
		return !known || seen.Connected || seen.Unsure
	}
	return false
}
