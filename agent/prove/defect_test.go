package prove

import (
	"context"
	"strings"
	"testing"

	"pgregory.net/rapid"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// TestEveryAnswerSaysWhatToDo: whatever a question forgets, and where it has a defect.
func TestEveryAnswerSaysWhatToDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "x"})
		v := verdict{
			agentv1.ProofState(rapid.IntRange(1, 3).Draw(t, "state")), text.Draw(t, "expected"), text.Draw(t, "found"), text.Draw(t, "remedy"),
		}
		defect := rapid.Bool().Draw(t, "defect")
		set := ask(context.Background(), "m", []proof{
			{"one", func(context.Context) verdict {
				if defect {
					panic("cannot be")
				}
				return v
			}},
			{"two", func(context.Context) verdict { return proven("a", "b") }},
		})
		p := set[0]
		if p.State != agentv1.ProofState_PROOF_STATE_PROVEN && (p.Expected == "" || p.Found == "" || p.Remedy == "") {
			t.Errorf("not complete: %v", p)
		}
		if defect && (p.State != agentv1.ProofState_PROOF_STATE_UNPROVABLE || !strings.Contains(p.Found, "cannot be")) {
			t.Errorf("a defect: %v", p)
		}
		if set[1].State != agentv1.ProofState_PROOF_STATE_PROVEN {
			t.Errorf("the other one: %v", set[1])
		}
	})
}
