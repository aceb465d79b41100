package session

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// askTimeout bounds the wait for an answer where the caller does not.
	askTimeout = 30 * time.Second
	// maxAsk is the largest question to an agent, in octets.
	maxAsk = maxMessage - 64<<10
)

// Ask asks the agent of a machine with a session here, and returns its answer. The question's id is set here. It has kind
// NotFound where the machine has no session here, Canceled where the session ends before the answer, as it may when the agent
// does what it was asked, Timeout where none comes within the bound of ctx, or else half a minute: an agent that is older than
// the question stays silent. What the agent says that it cannot do has kind Conflict, and so has a reboot of another boot than
// the present one.
func (h *Hub) Ask(ctx context.Context, machineID string, ask *agentv1.Ask) (*agentv1.Answer, error) {
	s, err := h.session(machineID)
	if err != nil {
		return nil, err
	}
	if r := ask.GetReboot(); r != nil && r.GetBootId() != s.boot {
		return nil, errs.New(errs.Conflict, "%s has booted since it was to boot", s.slot)
	}
	if size := proto.Size(ask); size > maxAsk {
		return nil, errs.New(errs.Exhausted, "cannot ask %s: the question has %d bytes, more than %d", s.slot, size, maxAsk)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askTimeout)
		defer cancel()
	}
	id, x, err := s.begin()
	if err != nil {
		return nil, err
	}
	defer s.finish(id, x)
	s.out.add(&agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Ask{Ask: &agentv1.Ask{Id: id, Kind: ask.GetKind()}}})
	select {
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return nil, errs.New(errs.Timeout, "the agent of %s did not answer in time", s.slot).
				WithHint("an agent older than this server may not know the question: `provisionr agents upgrade %s`", s.slot)
		}
		return nil, context.Cause(ctx)
	case <-x.ended:
		return nil, errs.New(errs.Canceled, "the session of %s ended before it had answered", s.slot)
	case answer := <-x.answer:
		if answer.GetError() != "" {
			return nil, errs.New(errs.Conflict, "%s: %s", s.slot, cut(answer.GetError(), maxText))
		}
		return answer, nil
	}
}

// answered hands an answer to who waits for it.
func (s *session) answered(a *agentv1.Answer) {
	if x := s.exchange(a.GetId()); x != nil {
		select {
		case x.answer <- a:
		default: // One answer is enough.
		}
	}
}
