package prove

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// A port is silent once it has not answered for silenceTurns times as long as another port of the machine took to, for
// minSilence at least and probeTimeout at most.
const (
	silenceTurns = 20
	minSilence   = 250 * time.Millisecond
)

// maxLine bounds the first line that a probed port says; RFC 4253 section 4.2 allows 255 bytes.
const maxLine = 256

// reply is what became of a connection.
type reply int

const (
	silent reply = iota
	refused
	connected
	unreachable
	// mute: it was connected, and did not say a line in time.
	mute
)

// connect tries a port and returns the first line that it says within patience; none is waited for if that is zero.
func (p *Prover) connect(ctx context.Context, address string, port uint32, patience time.Duration) (reply, string) {
	dialing, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := p.dial(dialing, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused, ""
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return silent, ""
	case err != nil:
		return unreachable, ""
	}
	defer func() { _ = conn.Close() }() // only read from
	if patience == 0 || conn.SetReadDeadline(time.Now().Add(patience)) != nil {
		return connected, ""
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the agent ends: so does the wait
	defer stop()
	text, err := bufio.NewReaderSize(conn, maxLine).ReadSlice('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return mute, ""
	case err != nil:
		return connected, ""
	}
	return connected, strings.TrimSpace(strings.ToValidUTF8(string(text), ""))
}

// ssh proves that sshd answers on the machine's own address.
func (p *Prover) ssh(ctx context.Context, address string) verdict {
	expected := fmt.Sprintf("sshd answers on %s:%d", address, sshPort)
	const remedy = "see systemctl status ssh on the machine"
	switch r, line := p.connect(ctx, address, sshPort, bannerTimeout); {
	case r == connected && strings.HasPrefix(line, "SSH-2.0-"):
		return proven(expected, line)
	case r == connected:
		return failed(expected, "something answers that is not sshd", remedy)
	case r == mute:
		return failed(expected, fmt.Sprintf("it takes connections, and says nothing within %s", bannerTimeout), remedy+", and whether the machine is overloaded")
	case r == refused:
		return failed(expected, "nothing listens", remedy)
	default:
		return failed(expected, "no answer", remedy)
	}
}

// firewall proves the machine's own part: the policy is in place, and the listener that peers must not reach is there.
func (p *Prover) firewall(ctx context.Context, s *desired.State, run outcomes) verdict {
	if !s.Pool.GetFirewall().GetEnabled() {
		if v := resources(run, "no firewall", "firewall"); v.state != agentv1.ProofState_PROOF_STATE_PROVEN {
			return v
		}
		return proven("no firewall", "none, as the pool wants it")
	}
	v := resources(run, "firewall", "firewall")
	if v.state != agentv1.ProofState_PROOF_STATE_PROVEN {
		return v
	}
	r, line := p.connect(ctx, s.Machine.GetAddress(), CanaryPort, probeTimeout)
	if r != connected || line != s.Machine.GetMachineId() {
		return failed(v.expected, fmt.Sprintf("the listener of the deny proof does not answer on port %d", CanaryPort), "see who uses the port on the machine, and the agent's log")
	}
	return proven(v.expected, "policy in place")
}

// peerFirewall proves that a peer denies what no rule allows and allows what a rule does.
func (p *Prover) peerFirewall(ctx context.Context, s *desired.State, peer *agentv1.Member) verdict {
	port := allowedPort(s)
	if port == 0 {
		return unprovable(fmt.Sprintf("port %d denied", CanaryPort), "no rule allows this pool a TCP port, so that silence proves nothing", "allow one, such as ssh")
	}
	expected := fmt.Sprintf("port %d denied, port %d allowed", CanaryPort, port)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began, denied := time.Now(), make(chan reply, 1)
	go func() {
		r, _ := p.connect(ctx, peer.Address, CanaryPort, 0)
		denied <- r
	}()
	allowed, _ := p.connect(ctx, peer.Address, port, 0)
	if took := time.Since(began); allowed == connected || allowed == refused {
		// The same kernel, asked at the same time, answers for the other port just as soon if it answers at all.
		defer time.AfterFunc(max(silenceTurns*took, minSilence)-took, cancel).Stop()
	}
	// A refusal comes from the peer's kernel behind the firewall: the port is open, only nobody listens.
	switch canary := <-denied; {
	case canary == connected || canary == refused:
		return failed(expected, fmt.Sprintf("port %d is open", CanaryPort), "see the firewall proof of the machine: nft list table inet provisionr")
	case allowed == connected || allowed == refused:
		return proven(expected, expected)
	case peer.Ready:
		return failed(expected, fmt.Sprintf("port %d does not answer", port), "see whether the machine is up, and its firewall: nft list table inet provisionr")
	}
	return unprovable(expected, "the machine does not answer", "wait until it is up")
}

// allowedPort returns a TCP port that a rule lets this machine reach on its peers, best one that names its pool; 0 if none.
func allowedPort(s *desired.State) uint32 {
	own, err := netip.ParseAddr(s.Machine.GetAddress())
	if err != nil {
		return 0
	}
	var anyone uint32
	for _, r := range s.Pool.GetFirewall().GetRules() {
		if r.Protocol != "tcp" || len(r.Ports) == 0 {
			continue
		}
		if slices.Contains(r.Pools, s.Machine.GetPool()) {
			return r.Ports[0].First
		}
		inside := func(cidr string) bool {
			prefix, err := netip.ParsePrefix(cidr)
			return err == nil && prefix.Contains(own) || cidr == own.String()
		}
		if anyone == 0 && slices.ContainsFunc(r.Cidrs, inside) {
			anyone = r.Ports[0].First
		}
	}
	return anyone
}
