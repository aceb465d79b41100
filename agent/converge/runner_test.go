package converge_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/converge"
)

// thing is a resource in memory. Its fields are touched between runs only; mu orders that with runs that a timer starts.
type thing struct {
	node
	mu           sync.Mutex
	wrong, stuck bool
	checkErr     error
	applyErr     error
	panics       bool
	applied      int
	// tried says that the last Apply failed.
	tried bool
}

func (r *thing) spoil() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = true
}

func (r *thing) Check(context.Context) (converge.Diff, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wrong {
		return converge.Diff{Text: "-is\n+should be"}, r.checkErr
	}
	return converge.Diff{}, r.checkErr
}

func (r *thing) Apply(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.applied++
	if r.panics {
		panic("at the disco")
	}
	if r.applyErr == nil && !r.stuck {
		r.wrong = false
	}
	return r.applyErr
}

type rig struct {
	*converge.Runner
	mu      sync.Mutex
	reports []converge.Report
	times   []time.Duration
}

// start runs a runner in a synctest bubble; reports are read after synctest.Wait.
func start(t *testing.T) *rig {
	t.Helper()
	return startWith(t, converge.Config{})
}

func startWith(t *testing.T, c converge.Config) *rig {
	t.Helper()
	g := &rig{}
	begin := time.Now()
	var err error
	c.Logger, c.Done = slog.New(slog.DiscardHandler), func(r converge.Report) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.reports = append(g.reports, r)
		g.times = append(g.times, time.Since(begin))
	}
	g.Runner, err = converge.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *rig) set(t *testing.T, epoch string, resources ...converge.Resource) converge.Report {
	t.Helper()
	if err := g.Set(converge.Plan{Resources: resources, Epoch: epoch}); err != nil {
		t.Fatal(err)
	}
	return g.last()
}

// last waits until the runner is idle and returns its last report.
func (g *rig) last() converge.Report {
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reports[len(g.reports)-1]
}

// ended is when each run ended, since the rig was started.
func (g *rig) ended() []time.Duration {
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.times)
}

func (g *rig) wake() converge.Report {
	g.Wake()
	return g.last()
}

func TestSecondRunChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a, b := &thing{node: node{"a/1", nil}, wrong: true}, &thing{node: node{"b/1", []string{"a"}}}
		first := g.set(t, "one", b, a)
		if first.Epoch != "one" || !first.First || first.Run.Err() != nil || first.Run.Changed() != 1 || len(first.Changes) != 1 {
			t.Fatalf("first run: %+v", first)
		}
		if c := first.Changes[0]; c.Resource != "a/1" || c.Drift || c.Error != "" || !strings.Contains(c.Diff, "+should be") {
			t.Errorf("change %v", c)
		}
		second := g.wake()
		if second.First || second.Run.Changed() != 0 || len(second.Changes) != 0 || a.applied != 1 || b.applied != 0 {
			t.Errorf("second run: %+v", second)
		}
	})
}

func TestDriftIsRepairedWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a := &thing{node: node{"a/1", nil}, wrong: true}
		g.set(t, "one", a)
		a.spoil()
		time.Sleep(70 * time.Second)
		last := g.last()
		if runs := len(g.ended()); runs != 2 || len(last.Changes) != 1 || !last.Changes[0].Drift {
			t.Fatalf("%d runs, last %+v", runs, last)
		}
		a.spoil()
		if next := g.set(t, "two", a); !next.First || next.Changes[0].Drift {
			t.Errorf("a change of the desired state counts as drift: %+v", next)
		}
	})
}

func TestFailureHoldsBackOnlyWhatDepends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a := &thing{node: node{"a/1", nil}, wrong: true, applyErr: errors.New("no disk")}
		b := &thing{node: node{"b/1", []string{"a/1"}}, wrong: true}
		c := &thing{node: node{"c/1", []string{"b"}}, wrong: true}
		d := &thing{node: node{"d/1", nil}, wrong: true}
		r := g.set(t, "one", a, b, c, d)
		if b.applied != 0 || c.applied != 0 || d.applied != 1 {
			t.Errorf("applied %d %d %d times, want 0 0 1", b.applied, c.applied, d.applied)
		}
		var got []string
		for _, o := range r.Run.Outcomes {
			if o.Err != nil {
				got = append(got, o.Resource+": "+o.Err.Error())
			}
		}
		want := []string{"a/1: no disk", "b/1: waits for what comes before it: a/1 failed", "c/1: waits for what comes before it: b/1 failed"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if len(r.Changes) != 2 || r.Changes[0].Error != "no disk" {
			t.Errorf("changes %v, want the failure of a/1 and the change of d/1", r.Changes)
		}
		if again := g.wake(); len(again.Changes) != 0 {
			t.Errorf("the same failure is reported again: %v", again.Changes)
		}
		a.applyErr = nil
		if again := g.wake(); again.Run.Err() != nil || again.Run.Changed() != 3 {
			t.Errorf("run after the cause was removed: %v", again.Run.Err())
		}
	})
}

func TestNowWaitsForARunOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Now(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a run without resources: %v", err)
		}
		a := &thing{node: node{"a/1", nil}}
		g.set(t, "one", a)
		a.spoil()
		run, err := g.Now(t.Context())
		if err != nil || run.Changed() != 1 {
			t.Errorf("run %+v, %v", run, err)
		}
	})
}

func TestRetriesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		g.set(t, "one", &thing{node: node{"a/1", nil}, wrong: true, applyErr: errors.New("never")})
		time.Sleep(5 * time.Minute)
		var gaps []float64
		times := g.ended()
		for i := range times[1:] {
			gaps = append(gaps, (times[i+1] - times[i]).Seconds())
		}
		if want := []float64{1, 2, 4, 8, 16, 32, 60, 60, 60}; !slices.Equal(gaps, want) {
			t.Errorf("waits %v, want %v", gaps, want)
		}
		g.set(t, "two", &thing{node: node{"a/1", nil}, wrong: true, applyErr: errors.New("never")})
		n := len(g.ended())
		time.Sleep(1500 * time.Millisecond)
		if times := g.ended(); len(times) != n+1 {
			t.Errorf("a new desired state does not begin its own back-off: %v", times[n-1:])
		}
	})
}

func TestBadResources(t *testing.T) {
	tests := []struct {
		name string
		r    *thing
		want string
	}{
		{"check fails", &thing{checkErr: errors.New("gone")}, "cannot check: gone"},
		{"apply does not help", &thing{wrong: true, stuck: true}, "still differs after the change: -is\n+should be"},
		{"defect", &thing{wrong: true, panics: true}, "defect: at the disco"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := start(t)
				tt.r.node = node{"a/1", nil}
				other := &thing{node: node{"b/1", nil}, wrong: true}
				r := g.set(t, "one", tt.r, other)
				if err := r.Run.Outcomes[0].Err; err == nil || !strings.HasPrefix(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				if other.applied != 1 {
					t.Error("the other resource was not applied")
				}
			})
		})
	}
}

func TestCheckChangesNothing(t *testing.T) {
	a, b := &thing{node: node{"a/1", nil}, wrong: true, checkErr: errors.New("gone")}, &thing{node: node{"b/1", []string{"a"}}, wrong: true}
	run, err := converge.Check(t.Context(), []converge.Resource{b, a}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.applied+b.applied != 0 || len(run.Outcomes) != 2 || run.Outcomes[0].Err == nil || run.Outcomes[1].Diff == "" {
		t.Errorf("outcomes %+v", run.Outcomes)
	}
}
