package reconcile

import (
	"context"
	"strings"
	"sync"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Bounds of one term's work.
const (
	// maxProposals bounds the commands in flight.
	maxProposals = 64
	// maxBegins bounds the machines for which offers are asked at one provider.
	maxBegins = 64
	// maxInFlight bounds all actions in flight.
	maxInFlight = 256
	// restBetweenPlans gathers changes that come together; a plan that takes long rests longer.
	restBetweenPlans = 10 * time.Millisecond
	// repeatSaying is how long the same event is not said again.
	repeatSaying = 10 * time.Minute
	// maxSaid bounds what is remembered as said; above it everything is forgotten, and said once more.
	maxSaid = 4096
)

// term is one leadership: its goroutine run owns all that it remembers. Workers only see what they are given.
type term struct {
	*Loop
	workers sync.WaitGroup
	market  *market
	// results is read whenever the term does not plan; its senders give up when the term ends.
	results chan result

	accounts    map[string]*account
	inFlight    map[string]work
	retries     map[string]retry
	said        map[string]time.Time
	presence    map[string]Presence
	ensured     map[string]uint64
	launchEnded map[string]time.Time
	refused     map[string]uint32
	pruned      map[string]time.Time
	firewalls   map[string]EnsuredFirewall
	terminated  map[string]time.Time
	asked       map[string]time.Time
	downSince   map[string]time.Time
	unexplained map[string]time.Time
	// pendingEvents are to be recorded with the next plan.
	pendingEvents []*provisionrv1.Event
}

// work is an action in flight.
type work struct {
	action Action
	cancel context.CancelFunc
}

// retry is when a failed action may be tried again.
type retry struct {
	failures int
	at       time.Time
}

// result is what came of an action or a list.
type result struct {
	action  Action
	listing *listed
	groups  *grouped
	at      time.Time
	err     error
	// refused says that the provider has definitely made nothing, and that another choice may be taken.
	refused bool
	// stale says that what was ensured and offered for the pool does not hold any more.
	stale string
	// generation of the network that was ensured, as committed.
	generation uint64
	// event to record.
	event *provisionrv1.Event
}

func newTerm(l *Loop) *term {
	return &term{
		Loop: l, results: make(chan result, maxInFlight+16), accounts: map[string]*account{}, inFlight: map[string]work{},
		retries: map[string]retry{}, said: map[string]time.Time{}, presence: map[string]Presence{}, ensured: map[string]uint64{},
		launchEnded: map[string]time.Time{}, terminated: map[string]time.Time{}, refused: map[string]uint32{},
		pruned: map[string]time.Time{}, firewalls: map[string]EnsuredFirewall{}, market: newMarket(),
		asked: map[string]time.Time{}, downSince: map[string]time.Time{}, unexplained: map[string]time.Time{},
	}
}

func (t *term) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer t.workers.Wait()
	defer cancel()
	t.Logger.Info("reconcile begins", "member", t.Member)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// The channels come before the reads: a change in between is not missed.
		changed := t.Store.Watch(state.TablePools, state.TableMachines, state.TableSlots, state.TableNetworks, state.TableProviders, state.TableProofs)
		sessions := t.Sessions.Changed()
		start := time.Now()
		snapshot := t.Store.Read()
		t.follow(ctx, snapshot)
		t.observe(snapshot, start)
		actions, wake := plan(t.view(snapshot), start)
		for _, e := range t.pendingEvents {
			actions = append(actions, Action{Op: Say, Event: e})
		}
		t.pendingEvents = nil
		wake = t.dispatch(ctx, actions, wake)
		rest := max(restBetweenPlans, 2*time.Since(start))
		settled, ok := t.pause(ctx, timer, rest)
		if !ok {
			return ctx.Err()
		}
		until := time.Hour
		switch {
		case settled:
			// The plan does not know of these results yet.
			until = 0
		case !wake.IsZero():
			until = max(0, time.Until(wake))
		}
		timer.Reset(until)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-sessions:
		case <-timer.C:
		case r := <-t.results:
			t.settle(r)
		}
		for len(t.results) > 0 {
			t.settle(<-t.results)
		}
	}
}

// pause waits, taking results meanwhile so that no worker waits for the loop, and says whether there were any. It is not
// ok when the term ends.
func (t *term) pause(ctx context.Context, timer *time.Timer, d time.Duration) (settled, ok bool) {
	timer.Reset(d)
	for {
		select {
		case <-ctx.Done():
			return settled, false
		case <-timer.C:
			return settled, true
		case r := <-t.results:
			t.settle(r)
			settled = true
		}
	}
}

func (t *term) view(s *state.Snapshot) View {
	listings, groups, unauthorized := make(map[string]Listing, len(t.accounts)), map[string]Groups{}, map[string]string{}
	for name, a := range t.accounts {
		listings[name], groups[name] = a.listing, a.groups
		if why := a.refused[listOp]; why != "" {
			unauthorized[name] = why
		}
	}
	return View{
		Snapshot: s, Listings: listings, Presence: t.presence, Ensured: t.ensured, DownSince: t.downSince,
		Unexplained: t.unexplained, LaunchEnded: t.launchEnded, Terminated: t.terminated, OrphanGrace: t.OrphanGrace,
		Refused: t.refused, Pruned: t.pruned, Unauthorized: unauthorized, Firewalls: t.firewalls, Groups: groups,
		Asked:       t.asked,
		LaunchAhead: 4 * t.Concurrency,
		DesiredHash: func(id string) string { return t.DesiredHash(s, id) },
	}
}

// observe keeps the clocks of silence, and forgets what is about machines that are no more.
func (t *term) observe(s *state.Snapshot, now time.Time) {
	connected, complete := t.Sessions.Connected()
	for m := range s.Machines() {
		id := m.GetMetadata().GetName()
		if !m.GetStatus().GetSessionSeen() || m.GetStatus().GetPhase() == gone {
			delete(t.presence, id)
			continue
		}
		seen := t.presence[id]
		switch {
		case connected[id]:
			seen = Presence{Connected: true}
		case seen.SilentSince.IsZero():
			seen = Presence{SilentSince: now, Unsure: !complete}
		default:
			seen.Unsure = !complete
		}
		t.presence[id] = seen
	}
	forget := func(id string) bool { return !explained(s.Machine(id)) }
	deleteIf(t.presence, forget)
	deleteIf(t.launchEnded, forget)
	deleteIf(t.terminated, forget)
	deleteIf(t.refused, forget)
	deleteIf(t.asked, func(id string) bool { return s.Machine(id).GetStatus().GetReboot() == nil })
	deleteIf(t.pruned, forget)
	t.market.keep(func(pool string) bool { return s.Pool(pool) != nil })
	deleteIf(t.downSince, forget)
	deleteIf(t.unexplained, func(key string) bool {
		name, id, _ := strings.Cut(key, "/")
		return !forget(id) || t.accounts[name] == nil
	})
	deleteIf(t.ensured, func(name string) bool { return s.Network(name) == nil })
}

func deleteIf[V any](m map[string]V, drop func(string) bool) {
	for k := range m {
		if drop(k) {
			delete(m, k)
		}
	}
}
