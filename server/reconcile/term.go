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
	// results is read whenever the term does not plan; its senders give up when the term ends.
	results chan result

	accounts    map[string]*account
	inFlight    map[string]work
	retries     map[string]retry
	said        map[string]time.Time
	presence    map[string]Presence
	ensured     map[string]uint64
	launchEnded map[string]time.Time
	terminated  map[string]time.Time
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
	at      time.Time
	err     error
	// generation of the network that was ensured, as committed.
	generation uint64
	// event to record.
	event *provisionrv1.Event
}

func newTerm(l *Loop) *term {
	return &term{
		Loop: l, results: make(chan result, maxInFlight+16), accounts: map[string]*account{}, inFlight: map[string]work{},
		retries: map[string]retry{}, said: map[string]time.Time{}, presence: map[string]Presence{}, ensured: map[string]uint64{},
		launchEnded: map[string]time.Time{}, terminated: map[string]time.Time{},
		downSince: map[string]time.Time{}, unexplained: map[string]time.Time{},
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
		if !t.pause(ctx, timer, rest) {
			return ctx.Err()
		}
		until := time.Hour
		if !wake.IsZero() {
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

// pause waits, taking results meanwhile so that no worker waits for the loop. It says false when the term ends.
func (t *term) pause(ctx context.Context, timer *time.Timer, d time.Duration) bool {
	timer.Reset(d)
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case r := <-t.results:
			t.settle(r)
		}
	}
}

func (t *term) view(s *state.Snapshot) View {
	listings := make(map[string]Listing, len(t.accounts))
	for name, a := range t.accounts {
		listings[name] = a.listing
	}
	return View{
		Snapshot: s, Listings: listings, Presence: t.presence, Ensured: t.ensured, DownSince: t.downSince,
		Unexplained: t.unexplained, LaunchEnded: t.launchEnded, Terminated: t.terminated, OrphanGrace: t.OrphanGrace,
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

// changing says whether machines of the provider come or go, so that its lists must be fresh.
func changing(s *state.Snapshot, name string) bool {
	for m := range s.Machines() {
		if m.GetSpec().GetProvider() != name {
			continue
		}
		switch m.GetStatus().GetPhase() {
		case launching, booting, joining, converging, unreachable, draining, terminating:
			return true
		}
	}
	return false
}
