package prove

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
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

// inPlace is found where the kernel has our table and nothing speaks against it.
const inPlace = "policy in place"

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
	return proven(v.expected, inPlace)
}
