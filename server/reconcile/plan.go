package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// Plan returns what to do next. It changes nothing, and an unchanged view gives the same actions again until they are
// done: the caller drops those whose key is at work.
func Plan(v View, now time.Time) []Action {
	actions, _ := plan(v, now)
	return actions
}

// plan also returns when the plan changes by the passing of time alone; zero means never.
func plan(v View, now time.Time) ([]Action, time.Time) {
	p := &planner{View: v, now: now, manages: manages(v.Snapshot), ahead: map[string]int{}}
	p.networks()
	p.firewalls()
	p.countAhead()
	pools := map[string]bool{}
	for pool := range v.Snapshot.Pools() {
		pools[pool.GetMetadata().GetName()] = true
		p.pool(pool)
	}
	for m := range v.Snapshot.Machines() {
		if !pools[m.GetSpec().GetPool()] {
			p.machine(nil, m)
		}
	}
	p.orphans()
	return p.actions, p.wake
}

// planner collects the actions of one plan.
type planner struct {
	View
	now     time.Time
	actions []Action
	wake    time.Time
	// manages says that there may be heirs and notices.
	manages bool
	// holders and heirs are those of the slots of the pool that is being planned, by machine id; peers counts the holders that
	// live, -1 while that is not known.
	holders map[string]*provisionrv1.Machine
	heirs   map[string]bool
	peers   int
	// opinions is room for those of one judgement.
	opinions []opinion
	// ahead is how many machines of each provider wait for their launch call.
	ahead map[string]int
}

func (p *planner) add(a Action) { p.actions = append(p.actions, a) }

// due says whether the time has come, and remembers it where it has not.
func (p *planner) due(t time.Time) bool {
	if !t.After(p.now) {
		return true
	}
	if p.wake.IsZero() || t.Before(p.wake) {
		p.wake = t
	}
	return false
}

// passed is due for a timestamp that may be unset.
func (p *planner) passed(t *timestamppb.Timestamp) bool { return t != nil && p.due(t.AsTime()) }

// move plans a change of phase. A zero deadline means none.
func (p *planner) move(m *provisionrv1.Machine, to provisionrv1.Phase, reason string, deadline time.Time) {
	p.add(Action{Op: Move, Machine: m.GetMetadata().GetName(), Phase: setPhase(m, to, reason, deadline)})
}

// fail plans the end of a machine that did not come up; its console is kept.
func (p *planner) fail(m *provisionrv1.Machine, reason string) {
	p.add(Action{
		Op: Fail, Machine: m.GetMetadata().GetName(), Provider: m.GetSpec().GetProvider(), ProviderID: m.GetStatus().GetProviderId(),
		Phase: setPhase(m, failed, reason, time.Time{}),
	})
}

func setPhase(m *provisionrv1.Machine, to provisionrv1.Phase, reason string, deadline time.Time) *raftlogv1.SetPhase {
	set := &raftlogv1.SetPhase{
		Id: m.GetMetadata().GetName(), From: []provisionrv1.Phase{m.GetStatus().GetPhase()}, To: to, Reason: reason,
	}
	if !deadline.IsZero() {
		set.Deadline = timestamppb.New(deadline)
	}
	return set
}

func (p *planner) say(reason, pool string, m *provisionrv1.Machine, message string) {
	p.add(Action{Op: Say, Event: &provisionrv1.Event{
		Reason: reason, Message: message, Warning: true, Pool: pool, Machine: m.GetMetadata().GetName(), Slot: m.GetSpec().GetSlot(),
	}})
}

// networks has every network made usable whose provider answers and which a pool or machine may use.
func (p *planner) networks() {
	for n := range p.Snapshot.Networks() {
		name, generation := n.GetMetadata().GetName(), n.GetMetadata().GetGeneration()
		if p.Listings[n.GetSpec().GetProvider()].Known && !p.usable(n) {
			p.add(Action{Op: Ensure, Network: name, Provider: n.GetSpec().GetProvider(), Generation: generation})
		}
	}
}

// usable says whether the provider of a network, if it has one, has made it usable. No network is usable as well.
func (p *planner) usable(n *provisionrv1.Network) bool {
	if n.GetSpec().GetProvider() == "" {
		return true
	}
	done, ok := p.Ensured[n.GetMetadata().GetName()]
	return ok && done == n.GetMetadata().GetGeneration()
}

// countAhead counts the machines whose launch call is due.
func (p *planner) countAhead() {
	for m := range p.Snapshot.Machines() {
		if m.GetStatus().GetPhase() == launching && !p.refused(m) {
			p.ahead[m.GetSpec().GetProvider()]++
		}
	}
}

// pool plans one pool: each of its machines, then free slots, then what repair and rollout may take away.
func (p *planner) pool(pool *provisionrv1.Pool) {
	name := pool.GetMetadata().GetName()
	machines := slices.Collect(p.Snapshot.MachinesOf(name))
	// The highest index goes first when the pool shrinks.
	slices.SortStableFunc(machines, func(a, b *provisionrv1.Machine) int {
		return cmp.Compare(b.GetSpec().GetIndex(), a.GetSpec().GetIndex())
	})
	p.holders, p.heirs, p.peers = make(map[string]*provisionrv1.Machine, len(machines)), map[string]bool{}, -1
	free := map[uint32]bool{}
	for s := range p.Snapshot.SlotsOf(name) {
		p.holders[s.GetHolder()] = nil
		if s.GetHeir() != "" {
			p.heirs[s.GetHeir()] = true
		}
		free[s.GetIndex()] = s.GetHolder() == ""
	}
	delete(p.holders, "")
	for _, m := range machines {
		if _, holds := p.holders[m.GetMetadata().GetName()]; holds {
			p.holders[m.GetMetadata().GetName()] = m
		}
	}
	b := p.newBudget(pool, machines)
	for _, m := range machines {
		p.machine(b, m)
	}
	if pool.GetMetadata().GetDeleted() != nil {
		return
	}
	for i := range pool.GetSpec().GetSize() {
		if free[i+1] {
			p.add(Action{Op: Create, Pool: name, Index: i + 1, Generation: pool.GetMetadata().GetGeneration()})
		}
	}
	b.spend(p)
}

// orphans plans the end of instances that carry our tags and that no record explains.
func (p *planner) orphans() {
	grace := p.OrphanGrace
	if grace == 0 {
		grace = DefaultOrphanGrace
	}
	for _, name := range slices.Sorted(maps.Keys(p.Listings)) {
		listing := p.Listings[name]
		if !listing.Known {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(listing.Instances)) {
			since, unexplained := p.Unexplained[instanceKey(name, id)]
			if !unexplained || explained(p.Snapshot.Machine(id)) {
				continue
			}
			orphan := &provisionrv1.Machine{Metadata: &provisionrv1.Metadata{Name: id}}
			if !p.due(since.Add(grace)) {
				p.say("OrphanFound", "", orphan, "provider "+name+" has a machine that no record explains: it is terminated after "+grace.String())
				continue
			}
			p.add(Action{Op: Reap, Machine: id, Provider: name, ProviderID: listing.Instances[id].ProviderID})
		}
	}
}

// explained says whether the record accounts for an instance.
func explained(m *provisionrv1.Machine) bool { return m != nil && m.GetStatus().GetPhase() != gone }
