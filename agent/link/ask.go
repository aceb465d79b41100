package link

import (
	"context"
	"fmt"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// ask has the agent do one thing. It ends with the session.
func (s *session) ask(ctx context.Context, ask *agentv1.Ask) error {
	answer := func(a *agentv1.Answer) error {
		a.Id = ask.GetId()
		return s.say(ctx, &agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Answer{Answer: a}})
	}
	select {
	case s.asks <- struct{}{}:
	default:
		return answer(&agentv1.Answer{Error: fmt.Sprintf("this machine is asked more than %d things at once", maxAsks)})
	}
	s.tasks.Go(func() {
		defer func() { <-s.asks }()
		a, next := s.Ask(ctx, ask)
		// Where this fails the session is over, and the question with it.
		if answer(a) == nil && next != nil {
			next()
		}
	})
	return nil
}

// refuse answers where there is nobody to ask.
func refuse(context.Context, *agentv1.Ask) (*agentv1.Answer, func()) {
	return &agentv1.Answer{Error: errs.New(errs.Unsupported, "this agent is asked nothing").Error()}, nil
}
