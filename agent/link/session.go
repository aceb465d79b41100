package link

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	queueSize   = 64
	maxVerifies = 4
	maxExecs    = 8
	maxAsks     = 16
)

// session is one stream. The fields without a comment belong to its receiving goroutine.
type session struct {
	*Link
	stream grpc.BidiStreamingClient[agentv1.AgentMessage, agentv1.ServerMessage]
	// queue is what is to be sent, beside reports.
	queue chan *agentv1.AgentMessage
	// tasks are the goroutines of the session.
	tasks sync.WaitGroup

	// pending is the desired state that waits for components; asked says that all of them came once already.
	pending *agentv1.Desired
	asked   bool
	execs   execs
}

// session opens a stream and holds it until it breaks. It reports whether the server welcomed the machine.
func (l *Link) session(ctx context.Context, client agentv1.AgentServiceClient) (began bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	welcome := time.AfterFunc(attemptTimeout, func() {
		cancel(errs.New(errs.Timeout, "no welcome within %s", attemptTimeout))
	})
	defer welcome.Stop()
	stream, err := client.Session(ctx)
	if err != nil {
		return false, reason(ctx, err)
	}
	s := &session{Link: l, stream: stream, queue: make(chan *agentv1.AgentMessage, queueSize)}
	sent := time.Now()
	hello := &agentv1.Hello{
		AgentVersion: l.AgentVersion, BootId: l.BootID, Have: l.Store.Have(), Clock: timestamppb.New(sent), Program: l.Program,
	}
	// Where Send fails, Recv tells why (grpc.ClientStream).
	_ = stream.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Hello{Hello: hello}})
	first, err := stream.Recv()
	if err != nil {
		return false, reason(ctx, err)
	}
	w := first.GetWelcome()
	if w == nil {
		return false, errs.New(errs.Internal, "the server's first message is not a welcome")
	}
	if !welcome.Stop() {
		return false, context.Cause(ctx)
	}
	if w.ServerTime != nil {
		l.Identity.Observe(w.ServerTime.AsTime(), sent)
	}
	s.trust(w.Trust)
	l.Logger.Info("session began", "server", w.Server, "clock_skew", l.Identity.Skew().Round(time.Millisecond))
	l.client.Store(&client)
	defer l.client.Store(nil)
	l.Connected(w.Server)
	defer l.Connected("")
	l.Outbox.restart()
	s.tasks.Go(func() { cancelOn(cancel, s.send(ctx)) })
	s.tasks.Go(func() { s.keepRenewed(ctx, client) })
	err = s.receive(ctx)
	err = reason(ctx, err)
	cancel(nil)
	s.tasks.Wait()
	return true, err
}

// reason prefers what this side ended the session for to what gRPC makes of it.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return errs.FromRPC(err)
}

func cancelOn(cancel context.CancelCauseFunc, err error) {
	if err != nil {
		cancel(err)
	}
}

// send is the only sender of the stream after Hello. A stream that broke ends receive too, which tells why.
func (s *session) send(ctx context.Context) error {
	for {
		var m *agentv1.AgentMessage
		select {
		case <-ctx.Done():
			return nil
		case m = <-s.queue:
		case <-s.Outbox.ready:
			r := s.Outbox.take()
			if r == nil {
				continue
			}
			m = &agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Report{Report: r}}
		}
		if s.stream.Send(m) != nil {
			return nil
		}
	}
}

// say queues a message, and waits while the queue is full.
func (s *session) say(ctx context.Context, m *agentv1.AgentMessage) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case s.queue <- m:
		return nil
	}
}

// keepRenewed renews the certificate at half of its life; after a failure it tries again with the link's back-off.
func (s *session) keepRenewed(ctx context.Context, client agentv1.AgentServiceClient) {
	failures := 0
	for {
		in, err := s.Identity.RenewIn()
		if err != nil {
			s.Logger.Error("cannot plan the renewal of the certificate", "error", err)
			return
		}
		if failures > 0 {
			in = max(in, wait(failures+3))
		}
		if !sleep(ctx, in) {
			return
		}
		if err := s.renew(ctx, client); err == nil {
			failures = 0
		} else if failures++; failures == 1 && ctx.Err() == nil {
			s.Logger.Warn("cannot renew the certificate", "error", err, "hint", errs.HintOf(err))
		}
	}
}

func (s *session) receive(ctx context.Context) error {
	for {
		m, err := s.stream.Recv()
		if err != nil {
			return err
		}
		if err := s.handle(ctx, m); err != nil {
			return err
		}
	}
}

// handle acts on a message. An error ends the session: the server said what cannot be used, or the disk is broken.
func (s *session) handle(ctx context.Context, m *agentv1.ServerMessage) error {
	switch m := m.Kind.(type) {
	case *agentv1.ServerMessage_Desired:
		return s.desired(ctx, m.Desired)
	case *agentv1.ServerMessage_Component:
		return s.component(ctx, m.Component)
	case *agentv1.ServerMessage_Exec:
		return s.exec(ctx, m.Exec)
	case *agentv1.ServerMessage_ExecCancel:
		s.execs.cancel(m.ExecCancel.Id)
	case *agentv1.ServerMessage_Verify:
		s.verify(ctx, m.Verify.Id)
	case *agentv1.ServerMessage_Ask:
		return s.ask(ctx, m.Ask)
	case *agentv1.ServerMessage_ReportAck:
		s.Outbox.ack(m.ReportAck.Sequence)
	case *agentv1.ServerMessage_Trust:
		s.trust(m.Trust)
	}
	return nil
}

// trust takes a bundle. One that cannot be used is logged: the old one still serves.
func (s *session) trust(t *agentv1.Trust) {
	if err := s.Identity.SetTrust(t); err != nil {
		s.Logger.Error("cannot take the trust bundle", "error", err)
	}
}

// desired asks for the components that are missing. A newer desired state replaces one that is not complete yet.
func (s *session) desired(ctx context.Context, d *agentv1.Desired) error {
	if err := desired.Check(d); err != nil {
		return err
	}
	s.pending, s.asked = d, false
	missing := s.Store.Missing(d)
	if len(missing) == 0 {
		return s.commit(ctx)
	}
	return s.want(ctx, missing)
}

func (s *session) want(ctx context.Context, hashes [][]byte) error {
	return s.say(ctx, &agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Want{Want: &agentv1.Want{Hashes: hashes}}})
}

func (s *session) component(ctx context.Context, c *agentv1.Component) error {
	if err := s.Store.Put(c.Hash, c.Body); err != nil {
		return err
	}
	if s.pending == nil || len(s.Store.Missing(s.pending)) > 0 {
		return nil
	}
	return s.commit(ctx)
}

// commit makes the pending state the machine's. One that this agent cannot use is reported and does not end the session,
// which would only bring it again.
func (s *session) commit(ctx context.Context) error {
	d := s.pending
	state, err := s.Store.Commit(d)
	if missing := s.Store.Missing(d); err != nil && len(missing) > 0 && !s.asked {
		s.asked = true // a component was damaged on the disk since it was put there
		return s.want(ctx, missing)
	}
	s.pending = nil
	if errs.Is(err, errs.Invalid) {
		s.Logger.Error("cannot use the desired state", "generation", d.PoolGeneration, "error", err)
		s.Outbox.Put(&agentv1.Report{DesiredHash: d.Hash, PoolGeneration: d.PoolGeneration, Message: err.Error(), AgentVersion: s.AgentVersion})
		return nil
	}
	if err != nil {
		return err
	}
	s.Desired(state)
	return nil
}

// verify proves everything anew and says so once the outcome is acknowledged. Beyond the bound a request is dropped: the
// server's own deadline ends it.
func (s *session) verify(ctx context.Context, id string) {
	select {
	case s.verifies <- struct{}{}:
	default:
		s.Logger.Warn("too many verifications at once", "bound", maxVerifies)
		return
	}
	s.tasks.Go(func() {
		defer func() { <-s.verifies }()
		s.Verify(ctx)
		if s.Outbox.Flush(ctx) != nil {
			return
		}
		// The session is over where this fails, and the request with it.
		_ = s.say(ctx, &agentv1.AgentMessage{Kind: &agentv1.AgentMessage_VerifyDone{VerifyDone: &agentv1.VerifyDone{Id: id}}})
	})
}
