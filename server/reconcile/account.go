package reconcile

import (
	"context"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// account is one provider as this term uses it: one token bucket for all calls, and one goroutine that lists.
type account struct {
	name    string
	limiter *rate.Limiter
	// launches and changes bound the calls in flight. They are apart: a launch may take minutes, and a deletion must not
	// wait for it.
	launches, changes chan struct{}
	// pausedUntil holds back all changing calls after the provider asked for it.
	pausedUntil time.Time
	listing     Listing
	// interval tells the lister how often to list; kick makes it list at once. Both hold one value.
	interval chan time.Duration
	kick     chan struct{}
	every    time.Duration
	stop     context.CancelFunc
}

// listed is the outcome of one list.
type listed struct {
	provider string
	listing  Listing
}

// follow keeps one account for every Provider object, and its lister as busy as its machines need.
func (t *term) follow(ctx context.Context, s *state.Snapshot) {
	for p := range s.Providers() {
		name := p.GetMetadata().GetName()
		a := t.accounts[name]
		if a == nil {
			ctx, stop := context.WithCancel(ctx)
			a = &account{
				name: name, limiter: rate.NewLimiter(rate.Limit(t.CallsPerSecond), 1), stop: stop,
				launches: make(chan struct{}, t.Concurrency), changes: make(chan struct{}, t.Concurrency),
				interval: make(chan time.Duration, 1), kick: make(chan struct{}, 1), every: t.ListInterval,
			}
			t.accounts[name] = a
			t.workers.Go(func() { t.list(ctx, a.name, a.limiter, a.interval, a.kick) })
		}
		calls := p.GetSpec().GetCallsPerSecond()
		if calls == 0 {
			calls = t.CallsPerSecond
		}
		if a.limiter.Limit() != rate.Limit(calls) {
			a.limiter.SetLimit(rate.Limit(calls))
		}
		a.limiter.SetBurst(max(1, int(calls)))
		every := t.ListInterval
		if changing(s, name) || len(t.unexplained) > 0 {
			every = t.ChangingInterval
		}
		if every != a.every {
			a.every = every
			select {
			case <-a.interval:
			default:
			}
			a.interval <- every
		}
	}
	for name, a := range t.accounts {
		if s.Provider(name) == nil {
			a.stop()
			delete(t.accounts, name)
		}
	}
}

// list lists a provider until ctx ends: at first at once, then at each interval and when kicked.
func (t *term) list(ctx context.Context, name string, limiter *rate.Limiter, interval <-chan time.Duration, kick <-chan struct{}) {
	every := t.ListInterval
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case every = <-interval:
			timer.Reset(max(0, time.Until(last.Add(every))))
			continue
		case <-kick:
		case <-timer.C:
		}
		if limiter.Wait(ctx) != nil {
			return
		}
		last = time.Now()
		l, err := t.listOnce(ctx, name, last)
		select {
		case t.results <- result{listing: &listed{name, l}, at: last, err: err}:
		case <-ctx.Done():
			return
		}
		timer.Reset(every)
	}
}

// listOnce returns a listing that is known only if it is complete.
func (t *term) listOnce(ctx context.Context, name string, started time.Time) (Listing, error) {
	p, err := t.Providers.Provider(name)
	if err != nil {
		return Listing{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.ListTimeout)
	defer cancel()
	l := Listing{Started: started, Capabilities: p.Capabilities(), Instances: map[string]provider.Instance{}}
	for instance, err := range p.List(ctx) {
		if err != nil {
			return Listing{Capabilities: l.Capabilities}, err
		}
		if instance.MachineID == "" || instance.State == provider.Gone {
			continue
		}
		l.Instances[instance.MachineID] = instance
	}
	// A provider that stops early at a cancelled context without saying so has not listed everything.
	if err := ctx.Err(); err != nil {
		return Listing{Capabilities: l.Capabilities}, err
	}
	l.Known = true
	return l, nil
}

// take makes a list the newest of its provider and keeps the clocks of absence.
func (t *term) take(l *listed, err error) {
	a := t.accounts[l.provider]
	if a == nil {
		return
	}
	if a.listing.Known && err != nil {
		t.Logger.Warn("cannot list the provider's machines: their state is unknown", "provider", l.provider, "error", err)
	}
	a.listing = l.listing
	if !l.listing.Known {
		return
	}
	s := t.Store.Read()
	for m := range s.Machines() {
		id := m.GetMetadata().GetName()
		if m.GetSpec().GetProvider() != l.provider || m.GetStatus().GetPhase() == gone {
			continue
		}
		if l.listing.running(id) {
			delete(t.downSince, id)
		} else if _, down := t.downSince[id]; !down {
			t.downSince[id] = l.listing.Started
		}
	}
	for id := range l.listing.Instances {
		key := instanceKey(l.provider, id)
		if _, known := t.unexplained[key]; !known && !explained(s.Machine(id)) {
			t.unexplained[key] = l.listing.Started
		}
	}
	deleteIf(t.unexplained, func(key string) bool {
		name, id, _ := strings.Cut(key, "/")
		_, listed := l.listing.Instances[id]
		return name == l.provider && !listed
	})
}
