package reconcile

import (
	"cmp"
	"fmt"
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

// opinion is what one peer has against a machine; nothing where it is empty.
type opinion struct{ observer, bad string }

// judge weighs the newest proofs about a machine. Agents report changes only, so a proof stands until its observer
// reports another outcome, whatever desired state it was made under.
func (p *planner) judge(pool *provisionrv1.Pool, m *provisionrv1.Machine) (verdict, string) {
	id := m.GetMetadata().GetName()
	allowed := pool.GetSpec().GetVerify().GetUnprovable()
	own, wrong := 0, ""
	// A machine has few observers, and there are many machines: a short list is quicker than a map.
	peers := p.opinions[:0]
	for proof := range p.Snapshot.Proofs(id) {
		bad := objection(proof, allowed)
		switch {
		case proof.GetObserver() != id:
			at := slices.IndexFunc(peers, func(o opinion) bool { return o.observer == proof.GetObserver() })
			if at < 0 {
				peers = append(peers, opinion{proof.GetObserver(), bad})
			} else if peers[at].bad == "" {
				peers[at].bad = bad
			}
		case bad != "":
			if wrong == "" {
				wrong = bad
			}
		default:
			own++
		}
	}
	p.opinions = peers
	switch {
	case wrong != "":
		return refuted, wrong
	case own == 0:
		return waiting, "nothing is proven yet"
	}
	bad := ""
	slices.SortFunc(peers, func(a, b opinion) int { return cmp.Compare(a.observer, b.observer) })
	for _, o := range peers {
		peer := p.holders[o.observer]
		switch {
		case !p.live(peer):
		case o.bad == "":
			return proven, ""
		case bad == "":
			bad = fmt.Sprintf("as seen by %s: %s", peer.GetSpec().GetSlot(), o.bad)
		}
	}
	live := p.livePeers()
	if p.live(p.holders[id]) {
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

// livePeers returns how many machines of the pool that is being planned could be expected to look at others.
func (p *planner) livePeers() int {
	if p.peers < 0 {
		p.peers = 0
		for _, m := range p.holders {
			if p.live(m) {
				p.peers++
			}
		}
	}
	return p.peers
}

// live says whether the machine, one of the pool that is being planned, could be expected to look at its peers. Heirs look as
// well, but nobody waits for them.
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
