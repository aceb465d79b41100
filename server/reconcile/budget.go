package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// budget bounds what repair and rollout take away from a pool together.
type budget struct {
	pool   *provisionrv1.Pool
	safety safety
	// slots has the machine, not yet gone, of each index that the pool wants.
	slots map[uint32]*provisionrv1.Machine
	// unready is how many slots have no ready machine.
	unready int
	// replacing is how many slots are on their way from a machine that was taken away to a ready one.
	replacing int
	// mute is how many machines are unreachable.
	mute int
	// lost machines serve nobody; stale ones serve, but cannot become what the pool wants.
	lost, stale []candidate
}

type candidate struct {
	machine *provisionrv1.Machine
	why     string
	since   time.Time
}

func (p *planner) newBudget(pool *provisionrv1.Pool, machines []*provisionrv1.Machine) *budget {
	b := &budget{pool: pool, safety: safetyOf(pool), slots: map[uint32]*provisionrv1.Machine{}}
	before := map[uint32]bool{}
	for _, m := range machines {
		index := m.GetSpec().GetIndex()
		if m.GetStatus().GetPhase() == gone {
			before[index] = true
		} else if index <= pool.GetSpec().GetSize() {
			b.slots[index] = m
		}
	}
	for i := range pool.GetSpec().GetSize() {
		m := b.slots[i+1]
		phase := m.GetStatus().GetPhase()
		if phase != ready {
			b.unready++
		}
		switch phase {
		case ready, degraded, failed:
		case unreachable:
			b.mute++
		case draining, terminating:
			b.replacing++
		default:
			if before[i+1] {
				b.replacing++
			}
		}
	}
	return b
}

// consider offers a machine that is up or was lost for replacement, if there is a reason to replace it.
func (b *budget) consider(p *planner, m *provisionrv1.Machine) {
	id, status := m.GetMetadata().GetName(), m.GetStatus()
	since := status.GetSince().AsTime()
	why := state.Outdated(b.pool, m)
	switch status.GetPhase() {
	case failed:
		// It served nobody: no budget is needed, the back-off is brake enough.
		if why != "" || p.due(since.Add(retryAfter(p.Snapshot, b.pool, m))) {
			p.move(m, terminating, "replaced after a failure: "+status.GetReason(), time.Time{})
		}
	case unreachable:
		if !b.safety.repair {
			return
		}
		seen, known := p.Presence[id]
		if !known || seen.Connected || !p.due(seen.SilentSince.Add(b.safety.silentAfter)) {
			return
		}
		listing := p.Listings[m.GetSpec().GetProvider()]
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

// spend takes away what the budget allows: the longest lost first, then stale machines by index.
func (b *budget) spend(p *planner) {
	slices.SortStableFunc(b.lost, func(x, y candidate) int {
		return cmp.Or(x.since.Compare(y.since), cmp.Compare(x.machine.GetSpec().GetIndex(), y.machine.GetSpec().GetIndex()))
	})
	slices.SortStableFunc(b.stale, func(x, y candidate) int {
		return cmp.Compare(x.machine.GetSpec().GetIndex(), y.machine.GetSpec().GetIndex())
	})
	held := 0
	for _, c := range b.lost {
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
	for _, c := range b.stale {
		if b.unready >= b.safety.maxUnavailable || b.replacing >= b.safety.maxUnavailable {
			return
		}
		b.unready++
		b.replacing++
		p.move(c.machine, terminating, "replaced: "+c.why, time.Time{})
	}
}
