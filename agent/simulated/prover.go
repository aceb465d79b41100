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

// question is a proof of a machine about itself. Kinds are those of the resources that it rests on; none where it would need a
// network.
type question struct {
	assumption string
	kinds      []string
}

// questions are those of a pool, in the order of package prove.
func questions(s *desired.State) []question {
	pool, list := s.Pool, []question{
		{"os", nil}, {"packages", []string{"repository", "package"}}, {"files", []string{"file"}}, {"users", []string{"user", "group"}},
		{"hostname", []string{"hosts"}}, {"dns.forward", nil}, {"dns.reverse", nil}, {"resolver", nil}, {"clock", nil},
		{"firewall", []string{"firewall"}}, {"services", []string{"service"}}, {"ssh", nil},
	}
	policy, network := pool.GetOsPolicy(), pool.GetNetworking()
	for _, one := range []struct {
		wanted bool
		question
	}{
		{len(pool.GetRepositories()) > 0, question{"repositories", []string{"repository"}}},
		{len(pool.GetDownloads()) > 0, question{"downloads", []string{"download"}}},
		{len(pool.GetSysctl()) > 0, question{"sysctl", []string{"sysctl"}}},
		{len(pool.GetModules()) > 0, question{"modules", []string{"module"}}},
		{pool.GetTimezone() != "", question{"timezone", []string{"timezone"}}},
		{pool.GetLocale() != "", question{"locale", []string{"locale"}}},
		{pool.GetSwap() != nil, question{"swap", []string{"swap"}}},
		{len(pool.GetFilesystems()) > 0, question{"filesystems", []string{"filesystem"}}},
		{network.GetMtu() > 0 || len(network.GetAddresses())+len(network.GetRoutes()) > 0, question{"network", []string{"network"}}},
		{s.Machine.GetVpn() != nil, question{"vpn", []string{"vpn"}}},
		{policy.GetUnattendedUpgrades() != "" || policy.GetSelinux() != "" || policy.GetApparmor() != "", question{"ospolicy", []string{"ospolicy"}}},
		{pool.GetFirewall().GetEnabled() && len(pool.GetFirewall().GetEgress()) > 0, question{"firewall.egress", []string{"firewall"}}},
	} {
		if one.wanted {
			list = append(list, one.question)
		}
	}
	if slices.Contains(pool.GetProfiles(), "hadoop") {
		for _, what := range []string{"fqdn", "address", "ptr", "getent", "loopback", "clock"} {
			list = append(list, question{"hadoop." + what, nil})
		}
	}
	return list
}

const simulatedAnswer = "simulated: as desired"

// Own implements agent.Prover.
func (p *Prover) Own(ctx context.Context, s *desired.State) []*agentv1.Proof {
	run, err := p.last(ctx)
	var all []*agentv1.Proof
	for _, q := range questions(s) {
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
		if s.Machine.GetVpn() != nil {
			about = append(about, "vpn.peer")
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
