package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

const (
	// RebootDeadline is how long a machine may take to boot again.
	RebootDeadline = 10 * time.Minute
	// rebootLevel is the feature level from which on there are reboots.
	rebootLevel = 3
	// askGrace is how long the member that committed a reboot has to ask for it, and askAgain the time between later
	// questions: the machine needs some to go down.
	askGrace = 15 * time.Second
	askAgain = 30 * time.Second
	// askTimeout bounds one question.
	askTimeout = 15 * time.Second
	// rebootRest is the least time between two coordinated reboots of a machine: one that says that it needs another after
	// each is not rebooted without end.
	rebootRest = 24 * time.Hour
)

// Agents asks agents, through whichever member has their session.
type Agents interface {
	// Ask has kind Canceled where the session ended before the answer: the machine may be about to boot.
	Ask(ctx context.Context, machineID string, ask *agentv1.Ask) (*agentv1.Answer, error)
}

// rebooting says whether a machine has been told to boot again, and has time left for it.
func (p *planner) rebooting(m *provisionrv1.Machine) bool {
	r := m.GetStatus().GetReboot()
	return r != nil && !p.passed(r.GetDeadline())
}

// askReboot repeats the question of a reboot that is committed, for as long as the machine is as it was before.
func (p *planner) askReboot(m *provisionrv1.Machine) {
	id, r := m.GetMetadata().GetName(), m.GetStatus().GetReboot()
	if !p.rebooting(m) || !p.Presence[id].Connected || m.GetStatus().GetAgent().GetBootId() != r.GetBootId() {
		return
	}
	next := r.GetSince().AsTime().Add(askGrace)
	if asked, ok := p.Asked[id]; ok {
		next = later(next, asked.Add(askAgain))
	}
	if p.due(next) {
		p.add(Action{Op: Reboot, Machine: id, BootID: r.GetBootId(), Reason: r.GetReason()})
	}
}

// overdue says that a machine should have booted again and has not, as long as that matters: until it boots or, where
// nothing requires the reboot, until the record of it is closed.
func (p *planner) overdue(m *provisionrv1.Machine) string {
	r, last := m.GetStatus().GetReboot(), m.GetStatus().GetLastReboot()
	switch {
	case r != nil && !p.rebooting(m):
	case r == nil && last != nil && last.GetBootId() == m.GetStatus().GetAgent().GetBootId() && m.GetStatus().GetFacts().GetRebootRequired() != "":
		r = last
	default:
		return ""
	}
	return fmt.Sprintf("it was to boot again by %s and has not", r.GetDeadline().AsTime().Format(time.RFC3339))
}

// considerReboot offers a ready machine that says that it must boot again.
func (b *budget) considerReboot(p *planner, m *provisionrv1.Machine) {
	status := m.GetStatus()
	why, boot, last := status.GetFacts().GetRebootRequired(), status.GetAgent().GetBootId(), status.GetLastReboot()
	if why == "" || b.pool.GetSpec().GetOsPolicy().GetReboot() != "coordinated" || p.Snapshot.Cluster().GetFeatureLevel() < rebootLevel {
		return
	}
	if status.GetPhase() != ready || status.GetReboot() != nil || boot == "" || p.outdated(b, m) != "" || !p.settled(m) {
		return
	}
	if last != nil && (last.GetBootId() == boot || !p.due(last.GetSince().AsTime().Add(rebootRest))) {
		return
	}
	b.reboots = append(b.reboots, candidate{machine: m, why: why})
}

// settled says whether a machine is connected and as it should be.
func (p *planner) settled(m *provisionrv1.Machine) bool {
	return p.Presence[m.GetMetadata().GetName()].Connected && p.converged(m)
}

// reboot has one machine boot again, the one with the lowest index, once every other that the budget does not spare serves.
func (b *budget) reboot(p *planner) {
	if len(b.reboots) == 0 {
		return
	}
	unready, stuck := b.unready, 0
	for _, s := range b.slots {
		switch phase := s.holder.GetStatus().GetPhase(); {
		case phase == ready && s.holder.GetStatus().GetReboot() != nil:
			return // One at a time.
		case phase == ready && !p.settled(s.holder):
			unready++
		case phase == degraded || phase == unreachable || phase == failed:
			stuck++
		}
	}
	name := b.pool.GetMetadata().GetName()
	if unready >= b.safety.maxUnavailable || b.replacing >= b.safety.maxUnavailable {
		if stuck > 0 || b.safety.maxUnavailable == 0 {
			p.say("RebootHeld", name, nil, fmt.Sprintf("machines that must boot again wait: %d are not ready, and max_unavailable is %d",
				unready, b.safety.maxUnavailable))
		}
		return
	}
	c := slices.MinFunc(b.reboots, func(x, y candidate) int {
		return int(x.machine.GetSpec().GetIndex()) - int(y.machine.GetSpec().GetIndex())
	})
	p.add(Action{
		Op: Reboot, Pool: name, Machine: c.machine.GetMetadata().GetName(), BootID: c.machine.GetStatus().GetAgent().GetBootId(),
		Reason: c.why, Deadline: p.now.Add(RebootDeadline),
	})
}

// MayReboot says, with kind Conflict, why a machine may not be taken away for a reboot by hand: the others that do not serve
// use up what its pool allows.
func MayReboot(s *state.Snapshot, m *provisionrv1.Machine) error {
	pool := s.Pool(m.GetSpec().GetPool())
	if m.GetStatus().GetPhase() != ready || pool == nil {
		return nil // It takes nothing away.
	}
	away, most := s.Away(pool, m.GetMetadata().GetName()), state.MaxUnavailable(pool)
	if away < most {
		return nil
	}
	return errs.New(errs.Conflict, "cannot reboot %s now: %d other machines of pool %s do not serve, and its safety.maxUnavailable is %d",
		m.GetSpec().GetSlot(), away, m.GetSpec().GetPool(), most).
		WithHint("wait until they are ready, or allow more in the pool")
}

// reboot commits that a machine boots again, unless that is committed already, and asks its agent for it.
func (c caller) reboot(ctx context.Context, a Action) result {
	if c.Agents == nil {
		return result{err: errs.New(errs.Unsupported, "cannot reboot %s: this server cannot ask agents", a.Machine)}
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout+askTimeout)
	defer cancel()
	if err := c.Leadership.VerifyLeader(ctx); err != nil {
		return result{err: err}
	}
	m := c.Store.Read().Machine(a.Machine)
	present := m.GetStatus().GetReboot()
	switch {
	case present == nil && !a.Deadline.IsZero():
		c.Hook("reboot.before")
		err := c.propose(ctx, &raftlogv1.Command{Kind: &raftlogv1.Command_BeginReboot{BeginReboot: &raftlogv1.BeginReboot{
			Id: a.Machine, BootId: a.BootID, Reason: a.Reason, Deadline: timestamppb.New(a.Deadline),
		}}})
		if err != nil {
			return result{err: err}
		}
		c.Hook("reboot.committed")
	case present.GetBootId() != a.BootID || m.GetStatus().GetAgent().GetBootId() != a.BootID:
		return result{err: errs.New(errs.Canceled, "the machine's record has changed: %w", context.Canceled)}
	}
	askCtx, cancelAsk := context.WithTimeout(ctx, askTimeout)
	defer cancelAsk()
	_, err := c.Agents.Ask(askCtx, a.Machine, &agentv1.Ask{Kind: &agentv1.Ask_Reboot{Reboot: &agentv1.Reboot{Reason: a.Reason, BootId: a.BootID}}})
	c.Hook("reboot.called")
	if err != nil && !errs.Is(err, errs.Canceled) {
		return result{err: err, event: &provisionrv1.Event{
			Reason: "RebootDelayed", Warning: true, Pool: m.GetSpec().GetPool(), Machine: a.Machine, Slot: m.GetSpec().GetSlot(),
			Message: "the agent does not boot the machine again yet: " + err.Error(),
		}}
	}
	return result{}
}
