package reconcile

import (
	"context"
	"slices"
	"strings"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// The least time that lists of one account take for each of their pages: with the machines of 10,000 unchanged the
// account's API sees less than one request in a second, and few more while they change.
const (
	steadyPage   = 3 * time.Second
	changingPage = 500 * time.Millisecond
	// listRest is the least time between two lists, however often one is asked for.
	listRest = 250 * time.Millisecond
)

// account is one provider as this term uses it: bounds of the calls in flight, and one goroutine that lists. How many calls
// its API takes in a second is the provider's own affair.
type account struct {
	name string
	// begins, launches and changes bound the calls in flight. They are apart: a launch may take minutes, and a deletion must
	// not wait for it.
	begins, launches, changes chan struct{}
	// pausedUntil holds back all changing calls after the provider asked for it.
	pausedUntil time.Time
	// refused says what the credentials are refused for, by operation; listOp is that of lists.
	refused map[Op]string
	listing Listing
	groups  Groups
	// pacing tells the lister how often to list; kick makes it list soon, regroup has the groups listed. All hold one value.
	pacing        chan pace
	kick, regroup chan struct{}
	pace          pace
	stop          context.CancelFunc
}

const listOp Op = "list"

// pace is how often a provider is listed: at each interval, and not before the rest is over when kicked.
type pace struct{ interval, rest time.Duration }

// listed is the outcome of one list.
type listed struct {
	provider string
	listing  Listing
}

// population is what is to be listed of a provider.
type population struct {
	machines int
	// changing says that machines come or go, so that lists must be fresh.
	changing bool
}

func populations(s *state.Snapshot) map[string]population {
	all := map[string]population{}
	for m := range s.Machines() {
		if m.GetStatus().GetPhase() == gone {
			continue
		}
		p := all[m.GetSpec().GetProvider()]
		p.machines++
		switch m.GetStatus().GetPhase() {
		case launching, booting, joining, converging, unreachable, draining, terminating:
			p.changing = true
		}
		all[m.GetSpec().GetProvider()] = p
	}
	return all
}

// paceOf is how often a provider with that population is listed.
func (t *term) paceOf(p population, c provider.Capabilities) pace {
	pages := time.Duration(0)
	if c.ListPage > 0 {
		pages = time.Duration((p.machines + c.ListPage - 1) / c.ListPage)
	}
	out := pace{interval: max(t.ListInterval, pages*steadyPage), rest: max(listRest, pages*changingPage)}
	if p.changing || len(t.unexplained) > 0 {
		out.interval = max(t.ChangingInterval, pages*changingPage)
	}
	return out
}

// follow keeps one account for every Provider object, and its lister as busy as its machines need.
func (t *term) follow(ctx context.Context, s *state.Snapshot) {
	all := populations(s)
	for p := range s.Providers() {
		name := p.GetMetadata().GetName()
		a := t.accounts[name]
		if a == nil {
			a = t.open(ctx, name)
		}
		if wanted := t.paceOf(all[name], a.listing.Capabilities); wanted != a.pace {
			a.pace = wanted
			select {
			case <-a.pacing:
			default:
			}
			a.pacing <- wanted
		}
	}
	for name, a := range t.accounts {
		if s.Provider(name) == nil {
			a.stop()
			delete(t.accounts, name)
		}
	}
	deleteIf(t.firewalls, func(pool string) bool {
		if s.Pool(pool) != nil {
			return false
		}
		for _, a := range t.accounts {
			nudge(a.regroup)
		}
		return true
	})
}

// open begins to use a provider.
func (t *term) open(ctx context.Context, name string) *account {
	ctx, stop := context.WithCancel(ctx)
	a := &account{
		name: name, stop: stop, refused: map[Op]string{}, pace: pace{t.ListInterval, listRest},
		begins: make(chan struct{}, maxBegins), launches: make(chan struct{}, t.Concurrency), changes: make(chan struct{}, t.Concurrency),
		pacing: make(chan pace, 1), kick: make(chan struct{}, 1), regroup: make(chan struct{}, 1),
	}
	t.accounts[name] = a
	t.workers.Go(func() { t.list(ctx, name, a.pacing, a.kick) })
	t.workers.Go(func() { t.listGroups(ctx, name, a.regroup) })
	return a
}

// nudge asks for something that is as good once as many times.
func nudge(kick chan<- struct{}) {
	select {
	case kick <- struct{}{}:
	default:
	}
}

// list lists a provider until ctx ends: at first at once, then at each interval and when kicked.
func (t *term) list(ctx context.Context, name string, pacing <-chan pace, kick <-chan struct{}) {
	now := pace{t.ListInterval, listRest}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	kicked := false
	for {
		wait := now.interval
		select {
		case <-ctx.Done():
			return
		case now = <-pacing:
			wait = now.interval
		case <-kick:
			kicked = true
		case <-timer.C:
			wait = 0
		}
		if kicked {
			wait = min(wait, now.rest)
		}
		if left := time.Until(last.Add(wait)); left > 0 {
			timer.Reset(left)
			continue
		}
		last, kicked = time.Now(), false
		l, err := t.listOnce(ctx, name, last)
		select {
		case t.results <- result{listing: &listed{name, l}, at: last, err: err}:
		case <-ctx.Done():
			return
		}
		timer.Reset(max(now.rest, time.Until(last.Add(now.interval))))
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
	_, isGrouped := p.(provider.FirewallGroups)
	l := Listing{Started: started, Capabilities: p.Capabilities(), Grouped: isGrouped, Instances: map[string]provider.Instance{}}
	unknown := Listing{Capabilities: l.Capabilities, Grouped: isGrouped}
	for instance, err := range p.List(ctx) {
		if err != nil {
			return unknown, err
		}
		if instance.MachineID != "" && instance.State != provider.Gone {
			l.add(instance)
		}
	}
	// A provider that stops early at a cancelled context without saying so has not listed everything.
	if err := ctx.Err(); err != nil {
		return unknown, err
	}
	l.Known = true
	return l, nil
}

// add adds an instance. Of several of one machine, one that lives stands for it, of these the one with the lowest id. Those
// that live are remembered: one of them is to be left.
func (l *Listing) add(i provider.Instance) {
	before, twice := l.Instances[i.MachineID]
	if !twice {
		l.Instances[i.MachineID] = i
		return
	}
	living := l.Duplicates[i.MachineID]
	if len(living) == 0 && live(before) {
		living = []string{before.ProviderID}
	}
	if live(i) {
		living = append(living, i.ProviderID)
	}
	if len(living) > 0 {
		if l.Duplicates == nil {
			l.Duplicates = map[string][]string{}
		}
		slices.Sort(living)
		l.Duplicates[i.MachineID] = living
	}
	if live(i) && !live(before) || live(i) == live(before) && i.ProviderID < before.ProviderID {
		l.Instances[i.MachineID] = i
	}
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
	t.authorized(a, listOp, err)
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

// authorized keeps what the credentials of a provider are refused for, and says so once for each operation.
func (t *term) authorized(a *account, op Op, err error) {
	if provider.KindOf(err) != provider.Unauthorized {
		if err == nil {
			delete(a.refused, op)
		}
		return
	}
	if _, said := a.refused[op]; !said {
		t.retain(&provisionrv1.Event{
			Reason: "ProviderUnauthorized", Warning: true, Message: "provider " + a.name + " refuses the credentials: " + err.Error(),
		})
	}
	a.refused[op] = err.Error()
}
