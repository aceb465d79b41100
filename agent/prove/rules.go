package prove

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// peerFirewall proves that a peer denies what no rule allows and allows what a rule does. The denied port has a listener, which
// the peer proves itself. Allowed are the agent's own port, where it greets with its id, and one that the pool's rules name.
func (p *Prover) peerFirewall(ctx context.Context, s *desired.State, peer *agentv1.Member) verdict {
	rule, confirm := allowedPort(s), uint32(ConfirmPort)
	if dropped(s, ConfirmPort) {
		confirm = 0
	}
	if rule == 0 && confirm == 0 {
		return unprovable(fmt.Sprintf("port %d denied", CanaryPort), "no rule allows this pool a TCP port, so that silence proves nothing", "allow one, such as ssh")
	}
	port := cmp.Or(rule, confirm)
	expected := fmt.Sprintf("port %d denied, port %d allowed", CanaryPort, port)
	to, err := netip.ParseAddr(peer.Address)
	if err != nil || !mayLeave(s, to, port) {
		return unprovable(expected, "the egress rules of the machine that tries keep it from it", "allow the pool's machines to reach each other by an egress rule")
	}
	// A refusal comes from the peer's kernel behind the firewall: the port is open, only nobody listens.
	reached := func(r reply) bool { return r == connected || r == refused }
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	denied, greeted := make(chan reply, 1), make(chan reply, 1)
	go func() {
		r, _ := p.connect(ctx, peer.Address, CanaryPort, 0)
		denied <- r
	}()
	go func() { greeted <- p.greeted(ctx, peer, confirm) }()
	var allowed reply
	if rule == 0 {
		allowed = <-greeted
	} else {
		allowed, _ = p.connect(ctx, peer.Address, rule, 0)
	}
	if took := time.Since(began); reached(allowed) {
		// The same kernel, asked at the same time, answers for the other port just as soon if it answers at all.
		defer time.AfterFunc(max(silenceTurns*took, minSilence)-took, cancel).Stop()
	}
	canary := <-denied
	if rule != 0 && <-greeted == mute {
		allowed = mute
	}
	switch {
	case reached(canary):
		return failed(expected, fmt.Sprintf("port %d is open", CanaryPort), "see the firewall proof of the machine: nft list table inet provisionr")
	case reached(allowed):
		return proven(expected, expected)
	case allowed == mute:
		return failed(expected, fmt.Sprintf("port %d answers for another machine", ConfirmPort), "see who else has the machine's address")
	case peer.Ready:
		return failed(expected, fmt.Sprintf("port %d does not answer", port), "see whether the machine is up, and its firewall: nft list table inet provisionr")
	}
	return unprovable(expected, "the machine does not answer", "wait until it is up")
}

// greeted reaches the agent's own port of a peer. It is mute where another machine's id, or none, is said.
func (p *Prover) greeted(ctx context.Context, peer *agentv1.Member, port uint32) reply {
	if port == 0 {
		return silent
	}
	r, line := p.connect(ctx, peer.Address, port, probeTimeout)
	if r == connected && line != "" && line != peer.MachineId {
		return mute
	}
	if r == mute {
		return connected // it takes connections and says nothing: the agent is busy
	}
	return r
}

// allowedPort returns a TCP port that a rule lets this machine reach on its peers, best one that names its pool; 0 if none.
func allowedPort(s *desired.State) uint32 {
	var anyone uint32
	for _, r := range s.Pool.GetFirewall().GetRules() {
		if r.Drop || r.Protocol != "tcp" || len(r.Ports) == 0 || dropped(s, r.Ports[0].First) {
			continue
		}
		if slices.Contains(r.Pools, s.Machine.GetPool()) {
			return r.Ports[0].First
		}
		if anyone == 0 && concerns(s, r) {
			anyone = r.Ports[0].First
		}
	}
	return anyone
}

// dropped reports whether a rule refuses connections of this machine to a TCP port.
func dropped(s *desired.State, port uint32) bool {
	return slices.ContainsFunc(s.Pool.GetFirewall().GetRules(), func(r *agentv1.FirewallRule) bool {
		return r.Drop && r.Protocol == "tcp" && covers(r, port) && (slices.Contains(r.Pools, s.Machine.GetPool()) || concerns(s, r))
	})
}

// concerns reports whether a rule names this machine's address or slot.
func concerns(s *desired.State, r *agentv1.FirewallRule) bool {
	own, err := netip.ParseAddr(s.Machine.GetAddress())
	return err == nil && within(r, own) || slices.Contains(r.Machines, s.Machine.GetName())
}

func within(r *agentv1.FirewallRule, a netip.Addr) bool {
	return slices.ContainsFunc(r.Cidrs, func(cidr string) bool {
		prefix, err := netip.ParsePrefix(cidr)
		return err == nil && prefix.Contains(a) || cidr == a.String()
	})
}

func covers(r *agentv1.FirewallRule, port uint32) bool {
	return slices.ContainsFunc(r.Ports, func(p *agentv1.PortRange) bool { return p.First <= port && port <= p.Last })
}

// mayLeave reports whether the pool's egress rules let connections out to a TCP port of an address. Those of the proofs always
// may.
func mayLeave(s *desired.State, to netip.Addr, port uint32) bool {
	rules := s.Pool.GetFirewall().GetEgress()
	return len(rules) == 0 || port == ConfirmPort || port == CanaryPort || slices.ContainsFunc(rules, func(r *agentv1.FirewallRule) bool {
		member := func(m *agentv1.Member) bool { return m.Address == to.String() }
		return !r.Drop && r.Protocol == "tcp" && covers(r, port) && (within(r, to) ||
			slices.ContainsFunc(r.Pools, func(pool string) bool { return slices.ContainsFunc(s.Members[pool], member) }) ||
			slices.ContainsFunc(r.Machines, func(slot string) bool {
				for _, members := range s.Members {
					if slices.ContainsFunc(members, func(m *agentv1.Member) bool { return m.Name == slot && member(m) }) {
						return true
					}
				}
				return false
			}))
	})
}

// egress proves that what no egress rule allows does not leave the machine: it tries a port with a listener at a peer, sshd's,
// that no rule allows, and one that a rule does. Without a peer the kernel's table speaks for itself.
func (p *Prover) egress(ctx context.Context, s *desired.State, run outcomes) verdict {
	v := resources(run, "egress rules", "firewall")
	if v.state == agentv1.ProofState_PROOF_STATE_FAILED {
		return v
	}
	peers := Sample(s)
	at := slices.IndexFunc(peers, func(m *agentv1.Member) bool { return m.Ready })
	if at < 0 {
		if v.state == agentv1.ProofState_PROOF_STATE_PROVEN {
			v.found = inPlace + "; there is no ready peer to try them at"
		}
		return v
	}
	peer := peers[at]
	to, err := netip.ParseAddr(peer.Address)
	if err != nil {
		return v
	}
	if mayLeave(s, to, sshPort) {
		if r, _ := p.connect(ctx, peer.Address, sshPort, 0); r != connected {
			return failed(fmt.Sprintf("port %d of %s reached", sshPort, peer.Name), "no answer", "see nft list chain inet provisionr output on this machine, and the firewall of "+peer.Name)
		}
		v.found = inPlace + fmt.Sprintf("; port %d of %s reached, as a rule allows", sshPort, peer.Name)
		return v
	}
	expected := fmt.Sprintf("port %d of %s not reached", sshPort, peer.Name)
	if r, _ := p.connect(ctx, peer.Address, sshPort, 0); r == connected {
		return failed(expected, "it was reached", "see nft list table inet provisionr on this machine: "+repairs)
	}
	// What fails because the peer is away proves nothing: its echo, which is always allowed, says that it is not.
	if err := p.ping(ctx, to); err != nil {
		return unprovable(expected, peer.Name+" does not answer a ping either", "wait until it is up")
	}
	return proven(expected, expected)
}
