package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// helloTimeout is how long a stream may be open without a Hello.
const helloTimeout = 10 * time.Second

// maxBoot bounds the boot id that an agent names.
const maxBoot = 128

// session is the stream of one machine.
type session struct {
	machine, slot, network string
	boot, address, version string
	// program is the hash of the agent's program in hexadecimal, or empty.
	program string
	began   time.Time
	// last is when the agent was heard last, in nanoseconds since 1970.
	last atomic.Int64
	end  context.CancelCauseFunc
	out  outbox
	// facts are the newest that the agent told; only the goroutine that receives touches them.
	facts *provisionrv1.Facts

	mu sync.Mutex
	// waiting are the commands, verifications and questions in progress, by id.
	waiting map[string]*exchange
}

func (s *session) heard() time.Time { return time.Unix(0, s.last.Load()) }

// Session is a machine's lasting stream.
func (h *Hub) Session(stream agentv1.AgentService_SessionServer) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	s, err := h.open(ctx, stream)
	if err != nil {
		return err
	}
	s.end = cancel
	if h.enter(s, time.Now()) {
		return h.quarantine(ctx, s)
	}
	defer h.leave(s)
	defer s.endExchanges()
	h.cfg.Logger.Info("agent connected", "machine", s.machine, "slot", s.slot, "from", s.address, "agent", s.version)
	err = h.serve(ctx, s, stream)
	h.cfg.Logger.Info("agent disconnected", "machine", s.machine, "slot", s.slot, "reason", err)
	return err
}

// open admits the machine and hears its Hello.
func (h *Hub) open(ctx context.Context, stream agentv1.AgentService_SessionServer) (*session, error) {
	id, cert, err := h.identify(ctx)
	if err != nil {
		return nil, err
	}
	if pki.Expired(cert, time.Now()) {
		return nil, errs.New(errs.Unauthenticated, "the certificate of machine %s has ended: renew it", id)
	}
	m, err := h.admit(ctx, id, cert)
	if err != nil {
		h.refused(ctx, "session", id, err)
		return nil, err
	}
	hello, err := receiveHello(stream)
	if err != nil {
		h.refused(ctx, "session", id, err)
		return nil, err
	}
	s := &session{
		machine: id, slot: m.GetSpec().GetSlot(), network: m.GetSpec().GetNetwork(), began: time.Now(),
		boot: hello.GetBootId()[:min(len(hello.GetBootId()), maxBoot)], version: hello.GetAgentVersion(),
		program: hex.EncodeToString(hello.GetProgram()[:min(len(hello.GetProgram()), sha256.Size)]),
		address: remote(ctx), waiting: map[string]*exchange{}, out: newOutbox(),
	}
	if host, _, err := net.SplitHostPort(s.address); err == nil {
		s.address = host
	}
	s.last.Store(s.began.UnixNano())
	if !m.GetStatus().GetSessionSeen() {
		seen := &raftlogv1.SessionSeen{Id: id, KeyFingerprint: pki.CertFingerprint(cert)}
		if err := h.do(ctx, id, &raftlogv1.Command{Kind: &raftlogv1.Command_SessionSeen{SessionSeen: seen}}); err != nil {
			return nil, err
		}
	}
	s.out.add(&agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Welcome{Welcome: &agentv1.Welcome{
		Server: h.cfg.Member, ServerTime: timestamppb.Now(), Trust: h.trust(h.cfg.State.Read(), s.network),
	}}})
	// The agent presents its renewed certificate when it connects again.
	expiry := time.AfterFunc(time.Until(cert.NotAfter), func() {
		s.out.fail(errs.New(errs.Unavailable, "the certificate of this connection has ended: connect anew"))
	})
	context.AfterFunc(ctx, func() { expiry.Stop() })
	return s, nil
}

// receiveHello reads the first message. Its wait is bounded by ending the stream: the goroutine ends with it.
func receiveHello(stream agentv1.AgentService_SessionServer) (*agentv1.Hello, error) {
	type first struct {
		m   *agentv1.AgentMessage
		err error
	}
	got := make(chan first, 1)
	go func() {
		m, err := stream.Recv()
		got <- first{m, err}
	}()
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	select {
	case f := <-got:
		if f.err != nil {
			return nil, f.err
		}
		if hello := f.m.GetHello(); hello != nil {
			return hello, nil
		}
		return nil, errs.New(errs.Invalid, "the first message of a session must be hello")
	case <-timer.C:
		return nil, errs.New(errs.Timeout, "no hello within %s", helloTimeout)
	}
}

// quarantine commits that two machines hold one identity.
func (h *Hub) quarantine(ctx context.Context, s *session) error {
	err := errs.New(errs.Denied, "another machine has the identity of %s (%s): both are quarantined", s.slot, s.machine).
		WithHint("a machine was cloned: delete it; its pool replaces it")
	h.refused(ctx, "session", s.machine, err)
	command := &raftlogv1.Quarantine{Id: s.machine, Reason: "cloned identity: a second machine, at " + s.address + ", connected with it"}
	// The clone may hang up at once: that must not save it.
	ctx = context.WithoutCancel(ctx)
	if failed := h.do(ctx, s.machine, &raftlogv1.Command{Kind: &raftlogv1.Command_Quarantine{Quarantine: command}}); failed != nil {
		h.cfg.Logger.Error("cannot quarantine machine", "machine", s.machine, "error", failed)
	}
	return err
}

// serve sends and receives until either fails or the session is ended.
func (h *Hub) serve(ctx context.Context, s *session, stream agentv1.AgentService_SessionServer) error {
	failed := make(chan error, 2)
	go func() { failed <- s.send(stream, h.cfg.SendTimeout) }()
	go func() { failed <- h.receive(ctx, s, stream) }()
	select {
	case h.fresh <- struct{}{}:
	default:
	}
	// Returning ends the stream, and with it both goroutines.
	defer s.out.fail(errs.New(errs.Unavailable, "the session has ended"))
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *Hub) receive(ctx context.Context, s *session, stream agentv1.AgentService_SessionServer) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		s.last.Store(time.Now().UnixNano())
		switch kind := m.GetKind().(type) {
		case *agentv1.AgentMessage_Want:
			s.out.want(kind.Want.GetHashes())
		case *agentv1.AgentMessage_Report:
			h.reports.add(s, kind.Report, h.tells)
		case *agentv1.AgentMessage_ExecOutput:
			s.deliver(ctx, kind.ExecOutput)
		case *agentv1.AgentMessage_VerifyDone:
			s.verified(kind.VerifyDone.GetId())
		case *agentv1.AgentMessage_Answer:
			s.answered(kind.Answer)
		case *agentv1.AgentMessage_Hello:
			return errs.New(errs.Invalid, "hello comes once")
		}
		// A kind that this member does not know is of a newer agent.
	}
}
