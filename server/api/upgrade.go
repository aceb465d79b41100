package api

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

const (
	defaultUpgradeTimeout = 180 * time.Second
	maxUpgradeTimeout     = time.Hour
)

// States of an upgrade.
const (
	upgraded       = "upgraded"
	upgradeCurrent = "current"
	upgradeFailed  = "failed"
)

// UpgradeAgents upgrades pools side by side, and the machines of each one after the other. After the first that fails no
// other is begun: that one machine fails is a message of the stream, not the call's error.
func (s *machineService) UpgradeAgents(req *provisionrv1.UpgradeAgentsRequest, stream grpc.ServerStreamingServer[provisionrv1.UpgradeAgentsResponse]) error {
	timeout, err := bounded("timeout", req.Timeout, defaultUpgradeTimeout, maxUpgradeTimeout)
	if err != nil {
		return err
	}
	machines, err := s.selected(stream.Context(), req.Selector)
	if err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	pools := map[string][]*provisionrv1.Machine{}
	var first []*provisionrv1.Machine
	slices.SortStableFunc(machines, func(a, b *provisionrv1.Machine) int {
		return cmp.Compare(a.GetSpec().GetIndex(), b.GetSpec().GetIndex())
	})
	for _, m := range machines {
		pool := m.GetSpec().GetPool()
		if pools[pool] == nil {
			first = append(first, m)
		}
		pools[pool] = append(pools[pool], m)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	out := &sender[provisionrv1.UpgradeAgentsResponse]{stream: stream, fail: cancel}
	var stop atomic.Bool
	fanOut(first, func(m *provisionrv1.Machine) {
		for _, m := range pools[m.GetSpec().GetPool()] {
			if stop.Load() || ctx.Err() != nil {
				return
			}
			r := s.upgrade(ctx, m.GetMetadata().GetName(), m.GetSpec().GetSlot(), timeout)
			if r.State == upgradeFailed {
				stop.Store(true)
			}
			// An error of the stream itself has reached the sender already.
			_ = out.send(r)
		}
	})
	return context.Cause(ctx)
}

// upgrade upgrades the agent of one machine, and waits for the new one.
func (s *machineService) upgrade(ctx context.Context, id, slot string, timeout time.Duration) *provisionrv1.UpgradeAgentsResponse {
	r := &provisionrv1.UpgradeAgentsResponse{Machine: slot, State: upgradeFailed}
	fail := func(err error) *provisionrv1.UpgradeAgentsResponse {
		r.Version, r.Error = s.State.Read().Machine(id).GetStatus().GetAgent().GetVersion(), explained(err)
		return r
	}
	m := s.State.Read().Machine(id)
	arch := architectureOf(m)
	program := s.AgentProgram(arch)
	if program == nil {
		return fail(errs.New(errs.NotFound, "the servers have no agent for %s", arch).WithHint("put provisionr-agent-%s into the folder of agents of every server", arch))
	}
	if runs(m, program, s.Version) {
		r.State, r.Version = upgradeCurrent, m.GetStatus().GetAgent().GetVersion()
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := s.Agents.Ask(ctx, id, &agentv1.Ask{Kind: &agentv1.Ask_Upgrade{Upgrade: &agentv1.Upgrade{Sha256: program, Version: s.Version}}})
	if err != nil && !errs.Is(err, errs.Canceled) {
		return fail(err)
	}
	for {
		changed := s.State.Watch(state.TableMachines)
		m := s.State.Read().Machine(id)
		switch {
		case m == nil || !living(m):
			return fail(errs.New(errs.Conflict, "the machine was deleted meanwhile"))
		case runs(m, program, s.Version):
			r.State, r.Version = upgraded, m.GetStatus().GetAgent().GetVersion()
			return r
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fail(errs.New(errs.Timeout, "the new agent has not connected within %s: the old one takes over again by itself", timeout).
				WithHint("`provisionr events` says why, once the old agent is back"))
		}
	}
}

// runs says whether a machine's agent is a program. An agent that does not tell its program is known by its version.
func runs(m *provisionrv1.Machine, program []byte, version string) bool {
	agent := m.GetStatus().GetAgent()
	if known := agent.GetProgram(); known != "" {
		return known == hex.EncodeToString(program)
	}
	return agent.GetVersion() == version
}

// architectureOf is a machine's GOARCH.
func architectureOf(m *provisionrv1.Machine) string {
	switch arch := cmp.Or(m.GetStatus().GetFacts().GetArchitecture(), m.GetSpec().GetHardware().GetArchitecture()); arch {
	case "", "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	default:
		return arch
	}
}
