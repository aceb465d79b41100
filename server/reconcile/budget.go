package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// budget bounds what repair and rollout take away from a pool together.
type budget struct {
	pool   *provisionrv1.Pool
	safety safety
	// slots are the indexes that the pool wants, as far as they have machines.
	slots map[uint32]*slot
	// failures counts the failed machines of each index under the pool's present generation.
	failures map[uint32]int
	// unready is how many slots have no ready machine.
	unready int
	// replacing is how many slots are on their way from a machine that was taken away to a ready one.
	replacing int
	// mute is how many machines are unreachable.
	mute int
	// lost machines serve nobody; stale ones serve, but cannot become what the pool wants.
	lost, stale []candidate
	// reboots must boot again.
	reboots []candidate
}

type candidate struct {
	machine *provisionrv1.Machine
	why     string
	since   time.Time
}

// newBudget looks at a pool's machines. Which of them hold slots, p.holders says, which are heirs, p.heirs.
func (p *planner) newBudget(pool *provisionrv1.Pool, machines []*provisionrv1.Machine) *budget {
	b := &budget{pool: pool, safety: safetyOf(pool), slots: map[uint32]*slot{}, failures: map[uint32]int{}}
	generation := pool.GetMetadata().GetGeneration()
	for _, m := range machines {
		index := m.GetSpec().GetIndex()
		if m.GetStatus().GetEvidence() != nil && m.GetSpec().GetPoolGeneration() == generation {
			b.failures[index]++
		}
		if index > pool.GetSpec().GetSize() {
			continue
		}
		s := b.slots[index]
		if s == nil {
			s = &slot{}
			b.slots[index] = s
		}
		switch id := m.GetMetadata().GetName(); {
		case m.GetStatus().GetPhase() == gone:
			s.former = true
		case p.holders[id] != nil:
			s.holder = m
		case p.heirs[id]:
			s.heir = m
		default:
			s.former = true
			s.leaving++
		}
	}
	for i := range pool.GetSpec().GetSize() {
		s := b.slots[i+1]
		if s == nil {
			b.unready++
			continue
		}
		phase := s.holder.GetStatus().GetPhase()
		if phase != ready || s.holder.GetStatus().GetReboot() != nil {
			b.unready++
		}
		switch phase {
		case ready, degraded, failed:
		case unreachable:
			b.mute++
		case draining, terminating:
			b.replacing++
		default:
			if s.former {
				b.replacing++
			}
		}
		p.succession(b, s)
	}
	return b
}

// consider offers a machine that is up or was lost for replacement, if there is a reason to replace it.
func (b *budget) consider(p *planner, m *provisionrv1.Machine) {
	id, status := m.GetMetadata().GetName(), m.GetStatus()
	since := status.GetSince().AsTime()
	why := p.outdated(b, m)
	switch status.GetPhase() {
	case failed:
		// It served nobody: no budget is needed, the back-off is brake enough.
		if why != "" || p.due(since.Add(b.retryAfter(m))) {
			p.move(m, terminating, "replaced after a failure: "+status.GetReason(), time.Time{})
		}
	case unreachable:
		listing := p.Listings[m.GetSpec().GetProvider()]
		// What a person has had join, a person must replace: nobody else can.
		if !b.safety.repair || listing.Capabilities.Adopted || p.rebooting(m) {
			return
		}
		seen, known := p.Presence[id]
		if !known || seen.Connected || !p.due(seen.SilentSince.Add(b.safety.silentAfter)) {
			return
		}
		_, down := p.DownSince[id]
		switch {
		case listing.Known && down && !listing.running(id) && listing.Started.After(since):
			b.lost = append(b.lost, candidate{m, "the agent is silent and the provider says that it does not run", seen.SilentSince})
		case !seen.Unsure && p.passed(status.GetDeadline()) && p.due(seen.SilentSince.Add(hardSilence*b.safety.silentAfter)):
			if b.mute > b.safety.maxUnavailable {
				p.say("RepairHeld", b.pool.GetMetadata().GetName(), nil,
					fmt.Sprintf("%d machines are silent but seem to run: none is replaced, as the fault is likely between them and the servers", b.mute))
				return
			}
			b.lost = append(b.lost, candidate{m, "the agent has been silent for too long", seen.SilentSince})
		}
	case degraded:
		if why != "" {
			b.lost = append(b.lost, candidate{m, why, since})
		}
	case ready:
		if why != "" {
			b.stale = append(b.stale, candidate{m, why, since})
		}
	}
}

// retryAfter is how long a failed machine stays before it is replaced: longer with each failure of its slot under the
// pool's present generation. A changed pool deserves a new try at once.
func (b *budget) retryAfter(m *provisionrv1.Machine) time.Duration {
	if m.GetSpec().GetPoolGeneration() != b.pool.GetMetadata().GetGeneration() {
		return 0
	}
	return backoff(b.failures[m.GetSpec().GetIndex()], 10*time.Second, 10*time.Minute)
}

// spend takes away what the budget allows: the longest lost first, then stale machines by index. What has an heir, or may
// have one, waits for it; a lost machine's takes over at once.
func (b *budget) spend(p *planner) {
	slices.SortStableFunc(b.lost, func(x, y candidate) int {
		return cmp.Or(x.since.Compare(y.since), cmp.Compare(x.machine.GetSpec().GetIndex(), y.machine.GetSpec().GetIndex()))
	})
	slices.SortStableFunc(b.stale, func(x, y candidate) int {
		return cmp.Compare(x.machine.GetSpec().GetIndex(), y.machine.GetSpec().GetIndex())
	})
	b.inherit(p)
	held := 0
	for _, c := range b.lost {
		s := b.slots[c.machine.GetSpec().GetIndex()]
		if s != nil && s.heir != nil && s.living() {
			if c.machine.GetStatus().GetPhase() == unreachable {
				p.handOver(s, c.why)
			}
			continue
		}
		if b.replacing >= b.safety.maxUnavailable {
			held++
			continue
		}
		b.replacing++
		p.move(c.machine, terminating, "replaced: "+c.why, time.Time{})
	}
	if held > 0 {
		p.say("RepairHeld", b.pool.GetMetadata().GetName(), nil, fmt.Sprintf(
			"more machines must be replaced than max_unavailable (%d) allows at once: the others wait", b.safety.maxUnavailable))
	}
	b.replaceStale(p)
	b.reboot(p)
}

// replaceStale takes stale machines away as long as the budget lasts.
func (b *budget) replaceStale(p *planner) {
	for _, c := range b.stale {
		if b.unready >= b.safety.maxUnavailable || b.replacing >= b.safety.maxUnavailable {
			return
		}
		if s := b.slots[c.machine.GetSpec().GetIndex()]; s != nil && (s.heir != nil || s.outdated != "" || s.noticed != "") {
			continue
		}
		b.unready++
		b.replacing++
		p.move(c.machine, terminating, "replaced: "+c.why, time.Time{})
	}
}
