package reconcile

import (
	"cmp"
	"fmt"
	"math/bits"
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
	own, wrong, missing := 0, "", asked(pool.GetSpec())
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
			missing.remove(proof.GetAssumption())
		}
	}
	p.opinions = peers
	switch {
	case wrong != "":
		return refuted, wrong
	case own == 0:
		return waiting, "nothing is proven yet"
	case missing.any():
		return waiting, missing.first() + " is not proven yet"
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

// extras are the assumptions that a machine only proves about itself where its pool asks for them, beside those that every
// machine of every version proves. An agent that does not know one would leave it out, and must not be taken for ready.
var extras = [...]string{
	"repositories", "downloads", "sysctl", "modules", "timezone", "locale", "swap", "filesystems", "network", "vpn", "ospolicy", "firewall.egress",
	"hadoop.fqdn", "hadoop.address", "hadoop.ptr", "hadoop.getent", "hadoop.loopback", "hadoop.clock",
}

// extraSet has a bit for each of extras: pools are judged by the thousand.
type extraSet uint32

func (e *extraSet) add(wanted bool, names ...string) {
	for _, name := range names {
		if at := slices.Index(extras[:], name); wanted && at >= 0 {
			*e |= 1 << at
		}
	}
}

func (e *extraSet) remove(name string) {
	if *e != 0 {
		if at := slices.Index(extras[:], name); at >= 0 {
			*e &^= 1 << at
		}
	}
}

func (e extraSet) any() bool { return e != 0 }

func (e extraSet) first() string { return extras[bits.TrailingZeros32(uint32(e))] }

// asked returns what the pool asks of its machines to prove beside what all do.
func asked(spec *provisionrv1.PoolSpec) extraSet {
	var e extraSet
	n, o := spec.GetNetworking(), spec.GetOsPolicy()
	e.add(len(spec.GetRepositories()) > 0, "repositories")
	e.add(len(spec.GetDownloads()) > 0, "downloads")
	e.add(len(spec.GetSysctl()) > 0, "sysctl")
	e.add(len(spec.GetModules()) > 0, "modules")
	e.add(spec.GetTimezone() != "", "timezone")
	e.add(spec.GetLocale() != "", "locale")
	e.add(spec.GetSwap() != nil, "swap")
	e.add(len(spec.GetFilesystems()) > 0, "filesystems")
	e.add(n.GetMtu() > 0 || len(n.GetAddresses())+len(n.GetRoutes()) > 0, "network")
	e.add(spec.GetVpn() != nil, "vpn")
	e.add(o.GetUnattendedUpgrades() != "" || o.GetSelinux() != "" || o.GetApparmor() != "", "ospolicy")
	e.add(len(spec.GetFirewall().GetEgress()) > 0 && !spec.GetFirewall().GetDisabled(), "firewall.egress")
	e.add(slices.Contains(spec.GetVerify().GetProfiles(), "hadoop"),
		"hadoop.fqdn", "hadoop.address", "hadoop.ptr", "hadoop.getent", "hadoop.loopback", "hadoop.clock")
	return e
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
