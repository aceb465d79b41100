package session

import (
	"context"
	"crypto/rand"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

const (
	// maxExchanges is how many commands, verifications and questions may be in progress on one machine.
	maxExchanges = 32
	// maxOutput is how many messages of output wait for a slow reader, for at most slowReader; then the command is cut off.
	maxOutput  = 64
	slowReader = 5 * time.Second
)

// exchange is a command, verification or question in progress.
type exchange struct {
	// output gets a command's output, or nil once for a verification that is done.
	output chan *agentv1.ExecOutput
	// answer gets the answer to a question.
	answer chan *agentv1.Answer
	// over is closed when nobody waits any more; ended when the session is over.
	over, ended chan struct{}
}

// Exec runs a command on a machine with a session here, and sends what it prints and how it ends, each under the name
// slot. It has kind NotFound where the machine has no session here. When ctx ends, the command is killed.
func (h *Hub) Exec(ctx context.Context, machineID, slot string, req *provisionrv1.ExecRequest, send func(*provisionrv1.ExecResponse) error) error {
	s, err := h.session(machineID)
	if err != nil {
		return err
	}
	id, x, err := s.begin()
	if err != nil {
		return err
	}
	defer s.finish(id, x)
	s.out.add(&agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Exec{Exec: &agentv1.Exec{
		Id: id, Command: req.GetCommand(), Stdin: req.GetStdin(), Timeout: req.GetTimeout(),
	}}})
	cancel := func() {
		s.out.add(&agentv1.ServerMessage{Kind: &agentv1.ServerMessage_ExecCancel{ExecCancel: &agentv1.ExecCancel{Id: id}}})
	}
	for {
		select {
		case <-ctx.Done():
			cancel()
			return context.Cause(ctx)
		case <-x.ended:
			return errs.New(errs.Unavailable, "the session of %s ended while the command ran; whether it finished is unknown", slot)
		case out := <-x.output:
			response, last := responseOf(slot, out)
			if err := send(response); err != nil {
				cancel()
				return err
			}
			if last {
				return nil
			}
		}
	}
}

// responseOf maps output; last says that nothing follows.
func responseOf(slot string, out *agentv1.ExecOutput) (response *provisionrv1.ExecResponse, last bool) {
	response = &provisionrv1.ExecResponse{Machine: slot}
	switch event := out.GetEvent().(type) {
	case *agentv1.ExecOutput_Stdout:
		response.Event = &provisionrv1.ExecResponse_Stdout{Stdout: event.Stdout}
	case *agentv1.ExecOutput_Stderr:
		response.Event = &provisionrv1.ExecResponse_Stderr{Stderr: event.Stderr}
	case *agentv1.ExecOutput_Exit:
		response.Event = &provisionrv1.ExecResponse_Exit{Exit: event.Exit}
		return response, true
	case *agentv1.ExecOutput_Error:
		response.Event = &provisionrv1.ExecResponse_Error{Error: event.Error}
		return response, true
	}
	return response, false
}

// Verify has a machine with a session here prove its assumptions anew, and returns when the proofs are committed. It has
// kind NotFound where the machine has no session here.
func (h *Hub) Verify(ctx context.Context, machineID string) error {
	s, err := h.session(machineID)
	if err != nil {
		return err
	}
	id, x, err := s.begin()
	if err != nil {
		return err
	}
	defer s.finish(id, x)
	s.out.add(&agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Verify{Verify: &agentv1.Verify{Id: id}}})
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-x.ended:
		return errs.New(errs.Unavailable, "the session of %s ended before it had verified", s.slot)
	case <-x.output:
		return nil
	}
}

func (s *session) begin() (id string, x *exchange, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil {
		return "", nil, errs.New(errs.Unavailable, "the session of %s has ended", s.slot)
	}
	if len(s.waiting) >= maxExchanges {
		return "", nil, errs.New(errs.Exhausted, "%d commands and questions wait for %s already", maxExchanges, s.slot)
	}
	id = rand.Text()
	x = &exchange{
		output: make(chan *agentv1.ExecOutput, maxOutput), answer: make(chan *agentv1.Answer, 1),
		over: make(chan struct{}), ended: make(chan struct{}),
	}
	s.waiting[id] = x
	return id, x, nil
}

func (s *session) finish(id string, x *exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(x.over)
	delete(s.waiting, id)
}

// endExchanges tells all who wait that the session is over.
func (s *session) endExchanges() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.waiting {
		close(x.ended)
	}
	s.waiting = nil
}

func (s *session) exchange(id string) *exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting[id]
}

// deliver hands output to who waits for it. A slow reader holds the whole session up, but not for long.
func (s *session) deliver(ctx context.Context, out *agentv1.ExecOutput) {
	x := s.exchange(out.GetId())
	if x == nil {
		return
	}
	select {
	case x.output <- out:
		return
	default:
	}
	timer := time.NewTimer(slowReader)
	defer timer.Stop()
	select {
	case x.output <- out:
	case <-x.over:
	case <-ctx.Done():
	case <-timer.C:
		s.cutOff(out.GetId(), x)
	}
}

// cutOff ends a command whose output is not read, in place of the oldest output that waits.
func (s *session) cutOff(id string, x *exchange) {
	s.out.add(&agentv1.ServerMessage{Kind: &agentv1.ServerMessage_ExecCancel{ExecCancel: &agentv1.ExecCancel{Id: id}}})
	select {
	case <-x.output:
	default:
	}
	select {
	case x.output <- &agentv1.ExecOutput{Id: id, Event: &agentv1.ExecOutput_Error{Error: "cut off: its output was not read"}}:
	default:
	}
}

func (s *session) verified(id string) {
	if x := s.exchange(id); x != nil {
		select {
		case x.output <- nil:
		default:
		}
	}
}

// cut shortens a text to at most n octets of valid UTF-8.
func cut(text string, n int) string {
	if len(text) > n {
		text = text[:n]
		for len(text) > 0 && !utf8.RuneStart(text[len(text)-1]) {
			text = text[:len(text)-1]
		}
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
