package converge_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/agent/converge"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// heard is a thing with one trigger, which counts its checks.
type heard struct {
	thing
	checks atomic.Int32
	// touches is called by Apply: what it does is heard as an event.
	touches func()
}

func newHeard(name string, after ...string) *heard {
	return &heard{thing: thing{node: node{name, after}}}
}

func (r *heard) Triggers() []converge.Trigger { return []converge.Trigger{r.trigger()} }

func (r *heard) trigger() converge.Trigger {
	return converge.Trigger{Kind: converge.OnFile, Name: r.name}
}

func (r *heard) Check(ctx context.Context) (converge.Diff, error) {
	r.checks.Add(1)
	return r.thing.Check(ctx)
}

func (r *heard) Apply(ctx context.Context) error {
	err := r.thing.Apply(ctx)
	if r.touches != nil {
		r.touches()
	}
	return err
}

func (r *heard) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.applyErr = err
}

func (r *heard) times() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

func TestEventsRepairDriftAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a, b, c := newHeard("a/1"), newHeard("b/1", "a"), newHeard("c/1")
		g.set(t, "one", a, b, c)
		checks := c.checks.Load()
		a.spoil()
		begin := time.Now()
		g.Touch(a.trigger())
		g.Touch(a.trigger(), converge.Trigger{Kind: converge.OnUnit, Name: "other"})
		time.Sleep(100 * time.Millisecond)
		last := g.last()
		if len(last.Changes) != 1 || !last.Changes[0].Drift || last.Changes[0].Diff != "-is\n+should be" || last.Changes[0].Resource != "a/1" {
			t.Fatalf("after %s: %v", time.Since(begin), last.Changes)
		}
		if last.Run.Checked != 2 || len(last.Run.Outcomes) != 3 {
			t.Errorf("%d of %d resources were checked, want a/1 and what follows it", last.Run.Checked, len(last.Run.Outcomes))
		}
		if c.checks.Load() != checks {
			t.Error("what has nothing to do with it was checked")
		}
		if next := g.wake(); next.Run.Changed() != 0 || len(next.Changes) != 0 {
			t.Errorf("the change is told again: %+v", next)
		}
	})
}

func TestOwnChangesAreNoDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a := newHeard("a/1")
		a.touches = func() {
			g.Touch(a.trigger())
			time.AfterFunc(50*time.Millisecond, func() { g.Touch(a.trigger()) }) // as a queue is read late
		}
		a.spoil()
		g.set(t, "one", a)
		time.Sleep(30 * time.Second)
		if n := a.checks.Load(); a.times() != 1 || n > 3 {
			t.Errorf("%d applies, %d checks: one change makes others", a.times(), n)
		}
		// What fails must not be driven by its own events.
		b := newHeard("b/1")
		b.touches = func() { time.AfterFunc(50*time.Millisecond, func() { g.Touch(b.trigger()) }) }
		b.spoil()
		b.fail(errors.New("never"))
		g.set(t, "two", b)
		time.Sleep(30 * time.Second)
		if b.times() > 6 {
			t.Errorf("%d attempts in 30 s", b.times())
		}
	})
}

func TestFailureKeepsItsOwnPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a, b, c := newHeard("a/1"), newHeard("b/1", "a"), newHeard("c/1")
		a.spoil()
		b.spoil()
		a.fail(errors.New("no disk"))
		g.set(t, "one", a, b, c)
		time.Sleep(20 * time.Second)
		if c.checks.Load() != 1 || b.times() != 0 || a.times() != 5 {
			t.Errorf("%d checks of the other, %d and %d applies; want 1, 5 and 0", c.checks.Load(), a.times(), b.times())
		}
		// What waits is not looked at again and again where it is touched.
		g.Touch(b.trigger())
		time.Sleep(time.Second)
		a.fail(nil)
		g.Retry()
		if last := g.last(); last.Run.Err() != nil || last.Run.Changed() != 2 {
			t.Errorf("what waited for it does not follow: %v", last.Run.Err())
		}
	})
}

func TestAuditTouchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a, b := newHeard("a/1"), newHeard("b/1", "a")
		a.spoil()
		if err := g.Set(converge.Plan{Resources: []converge.Resource{a, b}, Epoch: "one", Audit: true}); err != nil {
			t.Fatal(err)
		}
		first := g.last()
		if len(first.Changes) != 1 || !first.Changes[0].Audit || first.Changes[0].Error != "" || first.Changes[0].Diff == "" || first.Run.Err() == nil {
			t.Fatalf("first %+v, %v", first.Changes, first.Run.Err())
		}
		time.Sleep(5 * time.Minute)
		b.spoil()
		g.Touch(b.trigger())
		time.Sleep(time.Second)
		synctest.Wait()
		g.mu.Lock()
		told := g.reports[1:]
		g.mu.Unlock()
		// A full check may have come after it, which tells nothing more.
		var changes []*agentv1.ResourceChange
		for _, r := range told {
			changes = append(changes, r.Changes...)
		}
		if len(changes) != 1 || !changes[0].Audit || !changes[0].Drift || changes[0].Resource != "b/1" {
			t.Errorf("told %+v", changes)
		}
		if a.times()+b.times() != 0 {
			t.Error("something was applied")
		}
	})
}

func TestFightIsSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a := newHeard("a/1")
		g.set(t, "one", a)
		for range 10 * 60 * 5 { // ten minutes, every 200 ms
			a.spoil()
			g.Touch(a.trigger())
			time.Sleep(200 * time.Millisecond)
		}
		if n := a.times(); n > 30 {
			t.Errorf("%d repairs within ten minutes", n)
		}
		g.mu.Lock()
		var said []string
		for _, r := range g.reports {
			for _, c := range r.Changes {
				if c.Error != "" {
					said = append(said, c.Error)
				}
			}
		}
		g.mu.Unlock()
		if len(said) < 2 || len(said) > 8 || !strings.Contains(said[0], "something else changes it too") {
			t.Errorf("said %q", said)
		}
		// Once the other one has given up, a repair is quick again.
		time.Sleep(10 * time.Minute)
		a.spoil()
		g.Touch(a.trigger())
		time.Sleep(300 * time.Millisecond)
		before := a.times()
		a.spoil()
		g.Touch(a.trigger())
		time.Sleep(300 * time.Millisecond)
		if a.times() != before+1 {
			t.Error("still slow")
		}
	})
}

// guarded is a heard thing that can cut the machine off.
type guarded struct{ *heard }

func (guarded) Guard() converge.Guard                       { return converge.Guard{Fingerprint: "f"} }
func (guarded) Undo(context.Context) (converge.Undo, error) { return converge.Undo{}, nil }

type confirmer struct{ asked []string }

func (c *confirmer) Apply(ctx context.Context, r converge.Guarded) error {
	c.asked = append(c.asked, r.Name())
	return r.Apply(ctx)
}

func TestGuardedIsAppliedByTheConfirmer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &confirmer{}
		g := startWith(t, converge.Config{Confirm: c})
		a, b := newHeard("a/1"), newHeard("b/1")
		a.spoil()
		b.spoil()
		if r := g.set(t, "one", guarded{a}, b); r.Run.Changed() != 2 || !slices.Equal(c.asked, []string{"a/1"}) {
			t.Errorf("asked for %v, changed %d", c.asked, r.Run.Changed())
		}
	})
}

// TestEverythingGetsRight draws machines that are spoiled, failing and cured in any order: nothing is applied before what it
// comes after is right, and everything is right soon after the last fault.
func TestEverythingGetsRight(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(rt, "n")
		list := make([]*heard, n)
		var resources []converge.Resource
		for i := range list {
			list[i] = newHeard(fmt.Sprintf("k/%d", i))
			for j := range i {
				if rapid.IntRange(0, 3).Draw(rt, "edge") == 0 {
					list[i].after = append(list[i].after, list[j].name)
				}
			}
			list[i].wrong = rapid.Bool().Draw(rt, "wrong")
			resources = append(resources, &ordered{list[i], list, rt})
		}
		ops := rapid.SliceOfN(rapid.IntRange(0, 5*n-1), 0, 40).Draw(rt, "ops")
		synctest.Test(t, func(t *testing.T) {
			g := start(t)
			g.set(t, "one", resources...)
			for _, op := range ops {
				r := list[op/5]
				switch op % 5 {
				case 0:
					r.spoil()
					g.Touch(r.trigger())
				case 1:
					r.spoil() // nobody tells
				case 2:
					r.fail(errors.New("fault"))
				case 3:
					r.fail(nil)
				case 4:
					time.Sleep(700 * time.Millisecond)
				}
			}
			for _, r := range list {
				r.fail(nil)
			}
			time.Sleep(3 * time.Minute)
			last := g.last()
			if err := last.Run.Err(); err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				r.mu.Lock()
				if r.wrong {
					t.Errorf("%s is still wrong", r.name)
				}
				r.mu.Unlock()
			}
		})
	})
}

// ordered fails the test when it is applied while what it comes after is known to fail.
type ordered struct {
	*heard
	all []*heard
	t   *rapid.T
}

func (r *ordered) Apply(ctx context.Context) error {
	for _, other := range r.all {
		other.mu.Lock()
		bad := other.wrong && other.applyErr != nil && other.tried
		other.mu.Unlock()
		if bad && slices.Contains(r.after, other.name) {
			r.t.Errorf("%s is applied while %s fails", r.name, other.name)
		}
	}
	err := r.heard.Apply(ctx)
	r.mu.Lock()
	r.tried = err != nil
	r.mu.Unlock()
	return err
}
