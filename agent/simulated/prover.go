package simulated

import (
	"context"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/prove"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Prover answers the questions of package prove: from the last run where they rest on convergence, else as the simulation
// has it.
type Prover struct {
	last func(context.Context) (*converge.Run, error)
}

// NewProver returns a prover that asks for the last run. Nil: there is none.
func NewProver(last func(context.Context) (*converge.Run, error)) *Prover {
	if last == nil {
		last = func(context.Context) (*converge.Run, error) { return nil, nil }
	}
	return &Prover{last}
}

// restsOn are the kinds of resources that a proof of a machine about itself rests on, in the order of package prove. Empty:
// the proof would need a network.
func restsOn() []struct {
	assumption string
	kinds      []string
} {
	return []struct {
		assumption string
		kinds      []string
	}{
		{"os", nil}, {"packages", []string{"repository", "package"}}, {"files", []string{"file"}}, {"users", []string{"user"}},
		{"hostname", []string{"hosts"}}, {"dns.forward", nil}, {"dns.reverse", nil}, {"clock", nil}, {"firewall", []string{"firewall"}},
		{"services", []string{"service"}}, {"ssh", nil},
	}
}

const simulatedAnswer = "simulated: as desired"

// Own implements agent.Prover.
func (p *Prover) Own(ctx context.Context, s *desired.State) []*agentv1.Proof {
	run, err := p.last(ctx)
	var all []*agentv1.Proof
	for _, q := range restsOn() {
		one := &agentv1.Proof{
			Assumption: q.assumption, Machine: s.Machine.GetMachineId(), State: agentv1.ProofState_PROOF_STATE_PROVEN,
			Expected: q.assumption + " as desired", Found: simulatedAnswer,
		}
		all = append(all, one)
		if len(q.kinds) == 0 {
			continue
		}
		if err != nil || run == nil {
			one.State, one.Found, one.Remedy = agentv1.ProofState_PROOF_STATE_UNPROVABLE, "not known yet", "wait for the agent's next run"
			continue
		}
		for _, o := range run.Outcomes {
			if kind, _, _ := strings.Cut(o.Resource, "/"); o.Err != nil && slices.Contains(q.kinds, kind) {
				one.State, one.Found = agentv1.ProofState_PROOF_STATE_FAILED, o.Resource+" failed"
			}
		}
	}
	return all
}

// Peers implements agent.Prover.
func (p *Prover) Peers(_ context.Context, s *desired.State) []*agentv1.Proof {
	var all []*agentv1.Proof
	for _, peer := range prove.Sample(s) {
		about := []string{"peer.dns"}
		if s.Pool.GetFirewall().GetEnabled() {
			about = append(about, "peer.firewall")
		}
		for _, assumption := range about {
			all = append(all, &agentv1.Proof{
				Assumption: assumption, Machine: peer.GetMachineId(), State: agentv1.ProofState_PROOF_STATE_PROVEN,
				Expected: "as desired", Found: simulatedAnswer,
			})
		}
	}
	return all
}
