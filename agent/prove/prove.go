package prove

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/ntp"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// Timeout bounds a whole set of proofs, but for the wait for sshd's banner.
	Timeout = 2 * time.Second
	// probeTimeout bounds one connection.
	probeTimeout = time.Second
	// bannerTimeout bounds the wait for sshd's first line. It starts a process for each connection, which takes more than
	// a second on a machine that is emulated or busy.
	bannerTimeout = 5 * time.Second
	// allPeers is the largest pool in which every machine looks at every other; in larger ones it looks at ringPeers.
	allPeers  = 20
	ringPeers = 4
	// maxText bounds each text of a proof, in bytes.
	maxText = 512
	// CanaryPort is where the listener of the deny proof is. No rule allows it.
	CanaryPort = 7447
	// ConfirmPort is where the agent greets peers and servers with the machine's id: the machine's network is always allowed to.
	ConfirmPort = 7446
	sshPort     = 22
)

// Config of a Prover.
type Config struct {
	// Host is the machine. Required.
	Host *host.Host
	// Results answers the outcome of checking all resources, as converge.Check does, or that of the last run. It ends with ctx.
	// Nil makes the proofs that rest on it unprovable.
	Results func(ctx context.Context) (*converge.Run, error)
	// Stub is host:port of the agent's DNS stub. Default: 127.0.0.62:53.
	Stub string
}

// Prover makes proofs. Its methods are safe for several goroutines.
type Prover struct {
	host    *host.Host
	results func(ctx context.Context) (*converge.Run, error)
	stub    string

	// The ways to the outside, exchanged by tests.
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	lookup   func(ctx context.Context, name string) ([]netip.Addr, error)
	reversed func(ctx context.Context, address string) ([]string, error)
	exchange func(ctx context.Context, server, name string, kind uint16) ([]string, error)
	time     func(ctx context.Context, server string) (ntp.Answer, error)
	links    func() ([]link, error)
	ping     func(ctx context.Context, address netip.Addr) error
}

// New returns a Prover.
func New(c Config) (*Prover, error) {
	if c.Host == nil {
		return nil, errors.New("cannot make prover: Host is required")
	}
	// The pure Go resolver does what glibc does with files and dns in nsswitch.conf(5): /etc/hosts, then resolv.conf's servers.
	system := &net.Resolver{PreferGo: true}
	return &Prover{
		host: c.Host, results: c.Results, stub: cmp.Or(c.Stub, "127.0.0.62:53"),
		dial: (&net.Dialer{Timeout: probeTimeout}).DialContext,
		lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
			return system.LookupNetIP(ctx, "ip", name)
		},
		reversed: system.LookupAddr,
		exchange: exchange,
		time:     ntp.Query,
		links:    links,
		ping:     ping,
	}, nil
}

// proof is one question of a set.
type proof struct {
	assumption string
	ask        func(ctx context.Context) verdict
}

// verdict is the answer to one question.
type verdict struct {
	state                   agentv1.ProofState
	expected, found, remedy string
}

func proven(expected, found string) verdict {
	return verdict{agentv1.ProofState_PROOF_STATE_PROVEN, expected, found, ""}
}

func failed(expected, found, remedy string) verdict {
	return verdict{agentv1.ProofState_PROOF_STATE_FAILED, expected, found, remedy}
}

func unprovable(expected, found, remedy string) verdict {
	return verdict{agentv1.ProofState_PROOF_STATE_UNPROVABLE, expected, found, remedy}
}

// Own proves the machine's own assumptions, always in the same order.
func (p *Prover) Own(ctx context.Context, s *desired.State) []*agentv1.Proof {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	run, join := p.checked(ctx)
	defer join()
	return ask(ctx, s.Machine.GetMachineId(), enforced(s, slices.Concat(p.always(whole, s, run), p.asked(s, run), p.hadoop(s))))
}

// Peers proves what only this machine can prove about others of its pool: in order of slots, peer.dns before peer.firewall
// before vpn.peer. Where the pool has no firewall or no VPN, theirs is left out.
func (p *Prover) Peers(ctx context.Context, s *desired.State) []*agentv1.Proof {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	peers := Sample(s)
	sets := make([][]*agentv1.Proof, len(peers))
	var wg sync.WaitGroup
	for i, peer := range peers {
		list := []proof{{"peer.dns", func(ctx context.Context) verdict { return p.peerNames(ctx, s, peer) }}}
		if s.Pool.GetFirewall().GetEnabled() {
			list = append(list, proof{"peer.firewall", func(ctx context.Context) verdict { return p.peerFirewall(ctx, s, peer) }})
		}
		if s.Machine.GetVpn() != nil {
			list = append(list, proof{"vpn.peer", func(ctx context.Context) verdict { return p.vpnPeer(ctx, s, peer) }})
		}
		wg.Go(func() { sets[i] = ask(ctx, peer.MachineId, list) })
	}
	wg.Wait()
	return slices.Concat(sets...)
}

// ask asks all questions at once.
func ask(ctx context.Context, machine string, list []proof) []*agentv1.Proof {
	answers := make([]*agentv1.Proof, len(list))
	inParallel(len(list), func(i int) {
		v := list[i].answer(ctx)
		answers[i] = &agentv1.Proof{
			Assumption: list[i].assumption, Machine: machine, State: v.state,
			Expected: bounded(v.expected), Found: bounded(v.found), Remedy: bounded(v.remedy),
		}
	})
	return answers
}

// answer asks. A panic is the proof's own failure: the others, and the agent, go on. What a question leaves out is filled in:
// everything that is not proven says what was found and what to do.
func (q proof) answer(ctx context.Context) (v verdict) {
	defer func() {
		if defect := recover(); defect != nil {
			v = unprovable(q.assumption, fmt.Sprintf("defect of the agent: %v", defect), "report it; see journalctl -u provisionr-agent")
		}
		if v.state != agentv1.ProofState_PROOF_STATE_PROVEN {
			v.found, v.remedy = cmp.Or(v.found, "nothing"), cmp.Or(v.remedy, "see the machine's events")
		}
		v.expected = cmp.Or(v.expected, q.assumption)
	}()
	return q.ask(ctx)
}

// inParallel calls f with 0 to n-1 at once and waits.
func inParallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func bounded(s string) string {
	if len(s) > maxText {
		s = s[:maxText-3] + "…"
	}
	return strings.ToValidUTF8(s, "")
}

// Sample returns the peers that this machine looks at: all of a small pool, else its successors in the ring of slots, so
// that every machine is looked at by as many others.
func Sample(s *desired.State) []*agentv1.Member {
	peers := s.Peers()
	if len(peers) < allPeers {
		return peers
	}
	own := s.Machine.GetIndex()
	slices.SortFunc(peers, func(a, b *agentv1.Member) int {
		if after := boolean(a.Index < own) - boolean(b.Index < own); after != 0 {
			return after
		}
		return cmp.Compare(a.Index, b.Index)
	})
	return peers[:ringPeers]
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}
