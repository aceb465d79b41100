package reconcile

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// machine plans the next step of one machine. The budget is nil where its pool does not exist any more.
func (p *planner) machine(b *budget, m *provisionrv1.Machine) {
	status := m.GetStatus()
	switch status.GetPhase() {
	case gone:
		if p.due(status.GetSince().AsTime().Add(ForgetAfter)) {
			p.add(Action{Op: Forget, Machine: m.GetMetadata().GetName()})
		}
		return
	case terminating:
		p.terminate(m)
		return
	}
	if why := p.unwanted(b, m); why != "" {
		p.move(m, terminating, why, time.Time{})
		return
	}
	id := m.GetMetadata().GetName()
	switch {
	case status.GetPhase() == draining:
		if p.holders[id] != nil {
			p.move(m, terminating, status.GetReason(), time.Time{})
		} else {
			p.drain(m)
		}
		return
	case status.GetPhase() != pending && status.GetPhase() != launching:
		p.notice(m)
		if p.duplicated(m) {
			p.prune(m)
			return
		}
		p.identify(m)
	}
	if s := b.slots[m.GetSpec().GetIndex()]; p.heirs[id] && s.holder != nil {
		p.heir(b, s)
		return
	}
	switch status.GetPhase() {
	case pending:
		p.begin(b, m)
	case launching:
		p.launch(b, m)
	case booting, joining, converging:
		p.askReboot(m)
		p.comingUp(b, m)
	case ready, degraded:
		p.askReboot(m)
		p.serving(b, m)
	case unreachable:
		p.silent(b, m)
	case failed:
		b.consider(p, m)
	}
}

// unwanted says why the machine must go whatever its condition.
func (p *planner) unwanted(b *budget, m *provisionrv1.Machine) string {
	switch {
	case b == nil || b.pool.GetMetadata().GetDeleted() != nil:
		return "the pool was deleted"
	case m.GetMetadata().GetDeleted() != nil:
		return "the machine was deleted"
	case m.GetSpec().GetIndex() > b.pool.GetSpec().GetSize():
		return fmt.Sprintf("the pool was scaled to %d", b.pool.GetSpec().GetSize())
	}
	return ""
}

// begin commits the launch once nothing is missing for it. Until then a pending machine waits: no clock runs.
func (p *planner) begin(b *budget, m *provisionrv1.Machine) {
	if why := p.outdated(b, m); why != "" {
		p.move(m, terminating, why, time.Time{})
		return
	}
	name := m.GetSpec().GetProvider()
	listing := p.Listings[name]
	if !listing.Known {
		if why := p.Unauthorized[name]; why != "" && m.GetStatus().GetPhase() == pending && m.GetStatus().GetReason() != state.Waiting+why {
			p.move(m, pending, state.Waiting+why, time.Time{})
		}
		return
	}
	network := p.Snapshot.Network(m.GetSpec().GetNetwork())
	if network == nil && m.GetSpec().GetNetwork() != "" || !p.usable(network) {
		return
	}
	if done, ok := p.Firewalls[m.GetSpec().GetPool()]; listing.Grouped &&
		(!ok || done.UID != b.pool.GetMetadata().GetUid() || done.Generation != b.pool.GetMetadata().GetGeneration()) {
		return
	}
	limit := p.LaunchAhead
	if limit == 0 {
		limit = DefaultLaunchAhead
	}
	if p.ahead[name] >= limit {
		return
	}
	p.ahead[name]++
	p.add(Action{
		Op: Begin, Machine: m.GetMetadata().GetName(), Provider: name, Attempt: m.GetStatus().GetAttempt() + 1,
		Deadline: p.now.Add(b.safety.bootDeadline),
	})
}

// launch repeats the call until its outcome is known. An attempt that the provider has refused is followed by another, with
// another choice, for as long as it takes: no deadline runs while nothing is asked for.
func (p *planner) launch(b *budget, m *provisionrv1.Machine) {
	if p.refused(m) {
		p.begin(b, m)
		return
	}
	if p.passed(m.GetStatus().GetDeadline()) {
		p.fail(m, "the provider did not launch it in time")
		return
	}
	p.add(Action{
		Op: Launch, Machine: m.GetMetadata().GetName(), Provider: m.GetSpec().GetProvider(), Attempt: m.GetStatus().GetAttempt(),
	})
}

// outdated is state.Outdated. What a machine is to be comes from the pool as it was when the machine was made, so it is
// right where the pool has not changed since.
func (p *planner) outdated(b *budget, m *provisionrv1.Machine) string {
	if m.GetSpec().GetPoolGeneration() == b.pool.GetMetadata().GetGeneration() {
		return ""
	}
	return state.Outdated(b.pool, m)
}

// comingUp follows a machine from the provider's yes to ready.
func (p *planner) comingUp(b *budget, m *provisionrv1.Machine) {
	id, status := m.GetMetadata().GetName(), m.GetStatus()
	switch {
	case status.GetPhase() != converging && status.GetSessionSeen():
		p.move(m, converging, "the agent is at work", p.now.Add(b.safety.convergeDeadline))
		return
	case status.GetPhase() == booting && called(m):
		p.move(m, joining, "cloud-init has called", p.now.Add(b.safety.convergeDeadline))
		return
	}
	if why := p.outdated(b, m); why != "" {
		p.move(m, terminating, why, time.Time{})
		return
	}
	if status.GetPhase() == converging && status.GetDeadline() == nil {
		// It has just taken over a slot, or is from a time without deadlines.
		p.move(m, converging, status.GetReason(), p.now.Add(b.safety.convergeDeadline))
		return
	}
	if status.GetPhase() == converging && !p.heirs[id] {
		if v, _ := p.judge(b.pool, m); v == proven && p.converged(m) {
			p.move(m, ready, "every assumption is proven", time.Time{})
			return
		}
	}
	listing := p.Listings[m.GetSpec().GetProvider()]
	if since, down := p.DownSince[id]; down && listing.Known && !listing.Capabilities.Adopted && !listing.running(id) && !p.Presence[id].Connected &&
		p.due(later(since, status.GetSince().AsTime()).Add(max(downFor, listing.Capabilities.SettleWindow))) {
		p.fail(m, "the machine stopped while "+state.PhaseName(status.GetPhase()))
		return
	}
	if p.passed(status.GetDeadline()) {
		p.fail(m, p.late(b, m))
		return
	}
	if status.GetPhase() == converging && p.missing(m, b.safety) {
		p.move(m, unreachable, "the agent is silent", p.silence(m).Add(hardSilence*b.safety.silentAfter))
	}
}

// late says what a machine did not reach in time.
func (p *planner) late(b *budget, m *provisionrv1.Machine) string {
	switch m.GetStatus().GetPhase() {
	case booting:
		return "no sign of life within the boot deadline"
	case joining:
		return fmt.Sprintf("the agent has not connected in time; the last sign of life was %q", m.GetStatus().GetBootStage())
	}
	_, why := p.judge(b.pool, m)
	if message := m.GetStatus().GetAgent().GetMessage(); message != "" && !m.GetStatus().GetAgent().GetConverged() {
		why = message
	}
	return "not ready within the converge deadline: " + why
}

// converged says whether the agent has finished with what it would be given now.
func (p *planner) converged(m *provisionrv1.Machine) bool {
	agent := m.GetStatus().GetAgent()
	return agent.GetConverged() && agent.GetDesiredHash() != "" && agent.GetDesiredHash() == p.DesiredHash(m.GetMetadata().GetName())
}

// serving watches a machine that is or was ready.
func (p *planner) serving(b *budget, m *provisionrv1.Machine) {
	if p.missing(m, b.safety) {
		p.move(m, unreachable, "the agent is silent", p.silence(m).Add(hardSilence*b.safety.silentAfter))
		return
	}
	v, why := p.judge(b.pool, m)
	if late := p.overdue(m); late != "" {
		v, why = refuted, late
	}
	switch phase := m.GetStatus().GetPhase(); {
	case phase == ready && v == refuted:
		p.move(m, degraded, why, time.Time{})
	case phase == degraded && v == proven && p.converged(m):
		p.move(m, ready, "every assumption is proven again", time.Time{})
	default:
		b.consider(p, m)
		b.considerReboot(p, m)
	}
}

// silent takes an unreachable machine back, or offers it for repair.
func (p *planner) silent(b *budget, m *provisionrv1.Machine) {
	if !p.Presence[m.GetMetadata().GetName()].Connected {
		b.consider(p, m)
		return
	}
	switch v, why := p.judge(b.pool, m); {
	case v == refuted:
		p.move(m, degraded, why, time.Time{})
	case v == proven && p.converged(m):
		p.move(m, ready, "the agent is back", time.Time{})
	default:
		p.move(m, converging, "the agent is back", p.now.Add(b.safety.convergeDeadline))
	}
}

// missing says whether this leader itself has missed the agent for long enough: longer where a member that might have it
// could not be asked.
func (p *planner) missing(m *provisionrv1.Machine, s safety) bool {
	seen, known := p.Presence[m.GetMetadata().GetName()]
	least := s.unreachableAfter()
	if seen.Unsure {
		least = max(s.silentAfter, time.Minute)
	}
	return known && !seen.Connected && p.due(seen.SilentSince.Add(least))
}

func (p *planner) silence(m *provisionrv1.Machine) time.Time {
	return p.Presence[m.GetMetadata().GetName()].SilentSince
}

// terminate deletes at the provider until a complete list that began afterwards, and after the last moment at which a
// launch could still act, lacks the machine.
func (p *planner) terminate(m *provisionrv1.Machine) {
	id, status := m.GetMetadata().GetName(), m.GetStatus()
	if status.GetLaunch() == nil {
		p.move(m, gone, status.GetReason(), time.Time{})
		return
	}
	listing := p.Listings[m.GetSpec().GetProvider()]
	if !listing.Known {
		return
	}
	done, terminated := p.Terminated[id]
	_, listed := listing.Instances[id]
	if !terminated || listed && listing.Started.After(done) {
		p.add(Action{Op: Terminate, Machine: id, Provider: m.GetSpec().GetProvider(), ProviderID: status.GetProviderId()})
		return
	}
	if listed || !listing.Started.After(done) {
		return
	}
	last := p.lastLaunch(m)
	if !last.IsZero() {
		if final := last.Add(listing.Capabilities.SettleWindow); !p.due(final) || listing.Started.Before(final) {
			return
		}
	}
	set := setPhase(m, gone, status.GetReason(), time.Time{})
	set.AbsentSince = timestamppb.New(listing.Started)
	p.add(Action{Op: Move, Machine: id, Phase: set})
}

// lastLaunch is the last moment at which a launch call could still act; zero where none can. A launch whose answer is
// committed is over, but for calls of earlier attempts that another leader may have had in flight. No leader begins a call
// after the machine left launching, and none lasts longer than LaunchTimeout.
func (p *planner) lastLaunch(m *provisionrv1.Machine) time.Time {
	status := m.GetStatus()
	ended, own := p.LaunchEnded[m.GetMetadata().GetName()]
	switch answered := status.GetProviderId() != ""; {
	case answered && (own || status.GetAttempt() <= 1):
		return time.Time{}
	case own:
		return ended
	case answered:
		// The calls of earlier attempts began before the last one was committed.
		return status.GetLaunchedAt().AsTime().Add(LaunchTimeout)
	}
	return status.GetSince().AsTime().Add(LaunchTimeout)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
