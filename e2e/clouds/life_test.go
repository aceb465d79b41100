package clouds

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/memnet"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
	"github.com/provisionr/provisionr/server/state"
)

const pool = "web"

// census counts what went wrong, over many runs.
type census struct {
	mu                      sync.Mutex
	leaked, doubled, reaped int
	tally                   map[string]int
}

func (c *census) add(to *int, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*to += n
}

// trouble is what a life goes through.
type trouble struct {
	// decide says what happens to a call; happened hears what did. Nil: nothing does.
	decide   func(question) (fault, *rand.Rand)
	happened func(question, fault)
	// hook is that of every server.
	hook func(l *life, s *reconciletest.Server, point string)
	// pause is how long there is no leader after one is lost.
	pause func() time.Duration
}

// life is a cluster with one pool at a vendor.
type life struct {
	*reconciletest.World
	t      *testing.T
	vendor vendor
	census *census

	mu     sync.Mutex
	leader *reconciletest.Server
	lost   chan struct{}
	terms  int
	// asked counts the launch calls that came to the proxy.
	asked int
}

// live makes a bubble with a cluster in it, and has f live there. When f ends, nothing may be left.
func live(t *testing.T, seed uint64, start func(*testing.T, uint64) vendor, trouble trouble, census *census, f func(*life)) {
	t.Helper()
	// The vendor's server is made inside the bubble, but what the world asks of it is given before.
	var v vendor
	var n *memnet.Network
	l := &life{t: t, census: census}
	renew := func() map[string]provider.Provider {
		p, err := v.provider(n.Client())
		if err != nil {
			t.Errorf("cannot make a provider: %v", err)
		}
		return map[string]provider.Provider{"cloud": p}
	}
	reconciletest.Run(t, reconciletest.Config{
		Objects: []*provisionrv1.Object{
			reconciletest.ProviderObject("cloud"), reconciletest.NetworkObject("cloud", "cloud", "", false),
		},
		Instances: func() []reconciletest.Instance { return truth(v) },
		Renew:     renew, Tick: time.Second, Patience: 4 * time.Hour,
	}, func(ctx context.Context, w *reconciletest.World) {
		ctx, cancel := context.WithCancel(ctx)
		l.World, v = w, start(t, seed)
		l.vendor, l.lost = v, make(chan struct{}, 1)
		p := &proxy{
			vendor: v, decide: trouble.decide, depose: l.depose, acts: l.acts, acted: l.acted, history: map[string][]answer{},
		}
		if p.decide == nil {
			p.decide = func(question) (fault, *rand.Rand) { return fine, rand.New(rand.NewPCG(seed, 0)) }
		}
		p.happened = func(q question, what fault) {
			l.heard(q)
			if trouble.happened != nil {
				trouble.happened(q, what)
			}
		}
		n = memnet.Serve(p)
		var leading sync.WaitGroup
		defer func() {
			cancel()
			leading.Wait()
			p.inFlight.Wait()
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}()
		leading.Go(func() { l.lead(ctx, trouble) })
		f(l)
	})
}

// heard counts the launch calls.
func (l *life) heard(q question) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q.kind == launches {
		l.asked++
	}
}

// asks waits for the next launch call to come to the proxy, where it may be held, for so long at most.
func (l *life) asks(patience time.Duration) {
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.asked
	}
	for before, start := count(), time.Now(); count() == before && time.Since(start) < patience; {
		time.Sleep(100 * time.Millisecond)
	}
}

func truth(v vendor) []reconciletest.Instance {
	if v == nil {
		return nil
	}
	var all []reconciletest.Instance
	for _, i := range v.instances() {
		all = append(all, reconciletest.Instance{MachineID: i.machine, ProviderID: i.id, Slot: i.slot, Running: i.running})
	}
	return all
}

// lead has one server after the other lead, each a new process.
func (l *life) lead(ctx context.Context, trouble trouble) {
	var all []*reconciletest.Server
	for ctx.Err() == nil {
		s := l.Start(ctx, func(s *reconciletest.Server, point string) {
			if trouble.hook != nil {
				trouble.hook(l, s, point)
			}
		})
		all = append(all, s)
		l.mu.Lock()
		l.leader = s
		l.terms++
		l.mu.Unlock()
		for s.Alive() {
			select {
			case <-ctx.Done():
			case <-l.lost:
			}
		}
		if trouble.pause != nil && ctx.Err() == nil {
			time.Sleep(trouble.pause())
		}
	}
	for _, s := range all {
		<-s.Done()
	}
}

// end ends a server's leadership for good, as a process or only as a leader.
func (l *life) end(s *reconciletest.Server, killed bool) {
	if killed {
		s.Kill()
	} else {
		s.Depose()
	}
	select {
	case l.lost <- struct{}{}:
	default:
	}
}

func (l *life) depose() {
	l.mu.Lock()
	s := l.leader
	l.mu.Unlock()
	if s != nil {
		l.end(s, false)
	}
}

// acts is called before a call acts: what it ends must be what the state wants to end.
func (l *life) acts(q question) {
	for _, i := range l.vendor.instances() {
		if !i.live || !slices.Contains(q.ends, i.id) {
			continue
		}
		m := l.Read().Machine(i.machine)
		switch phase := m.GetStatus().GetPhase(); {
		case m == nil || phase == provisionrv1.Phase_PHASE_GONE:
			l.census.add(&l.census.leaked, 1)
			l.t.Errorf("%s of machine %s outlived its record until it was found as an orphan", i.id, i.machine)
		case phase != provisionrv1.Phase_PHASE_TERMINATING:
			l.census.add(&l.census.reaped, 1)
			l.t.Errorf("%s of machine %s is terminated, which is %s:\n%s", i.id, i.machine, state.PhaseName(phase), l.Describe())
		}
	}
}

// acted is called after a call has acted: whatever it made, no machine and no slot may live twice.
func (l *life) acted(q question) {
	if q.kind != launches {
		return
	}
	slots := map[string]string{}
	for _, i := range l.vendor.instances() {
		if !i.live {
			continue
		}
		if other, twice := slots[i.slot]; twice {
			l.census.add(&l.census.doubled, 1)
			l.t.Errorf("slot %s is doubled: %s and %s live:\n%s", i.slot, other, i.id, l.Describe())
		}
		slots[i.slot] = i.id
	}
}

// size applies the pool.
func (l *life) size(n uint32) {
	l.Apply(&provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{
		ApiVersion: "provisionr/v1", Kind: "Pool", Metadata: &provisionrv1.Metadata{Name: pool}, Spec: &provisionrv1.PoolSpec{
			Size: n, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}, Provider: "cloud",
			Safety: &provisionrv1.Safety{SilentAfter: durationpb.New(20 * time.Second)},
		},
	}}})
}

// rests waits until the pool has n ready machines, which are those in the cloud, one to one.
func (l *life) rests(n int) {
	l.t.Helper()
	l.Until("the pool is at rest", func(s *state.Snapshot) bool {
		all := l.vendor.instances()
		if !l.PoolReady(pool, n)(s) || len(all) != n {
			return false
		}
		for _, i := range all {
			status := s.Machine(i.machine).GetStatus()
			if !i.live || status.GetPhase() != provisionrv1.Phase_PHASE_READY || status.GetProviderId() != i.id {
				return false
			}
		}
		return true
	})
	l.once()
	if groups := l.vendor.groups(); len(groups) != 1 || !groups[pool] {
		l.t.Errorf("the groups are those of %v", slices.Collect(maps.Keys(groups)))
	}
}

// once checks that no machine was ever made twice.
func (l *life) once() {
	l.t.Helper()
	for machine, n := range l.vendor.made() {
		if n > 1 {
			l.census.add(&l.census.doubled, n-1)
			l.t.Errorf("machine %s was made %d times", machine, n)
		}
	}
}

// ends deletes the pool and waits until nothing is left in the cloud, and for long enough that what was late has come.
func (l *life) ends() {
	l.t.Helper()
	if l.Read().Pool(pool).GetMetadata().GetDeleted() == nil {
		l.Remove("pools", pool)
	}
	l.Until("all is gone", func(s *state.Snapshot) bool {
		return s.Pool(pool) == nil && len(l.vendor.instances()) == 0 && len(l.vendor.groups()) == 0 && len(l.vendor.leftovers()) == 0
	})
	time.Sleep(12 * time.Minute)
	left := l.vendor.instances()
	l.census.add(&l.census.leaked, len(left))
	for _, i := range left {
		l.t.Errorf("%s of machine %s is left", i.id, i.machine)
	}
	for _, what := range l.vendor.leftovers() {
		l.census.add(&l.census.leaked, 1)
		l.t.Errorf("%s is left", what)
	}
	for name := range l.vendor.groups() {
		l.t.Errorf("the group of %s is left", name)
	}
	for m := range l.Read().Machines() {
		if m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_GONE {
			l.t.Errorf("a record is left:\n%s", l.Describe())
		}
	}
	l.once()
}

// killOne ends a ready machine's instance behind our back, if there is one.
func (l *life) killOne(dice *rand.Rand) {
	all := slices.DeleteFunc(l.vendor.instances(), func(i instance) bool { return !i.running })
	if len(all) > 0 {
		slices.SortFunc(all, func(a, b instance) int { return strings.Compare(a.slot+a.id, b.slot+b.id) })
		l.vendor.kill(l.t, all[dice.IntN(len(all))])
	}
}
