package converge_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
)

// long is a thing whose Apply takes a while.
type long struct {
	thing
	during func()
}

func (l *long) Apply(ctx context.Context) error {
	l.during()
	time.Sleep(20 * time.Second)
	return l.thing.Apply(ctx)
}

// TestEventsDuringARunAreNotLost: what happens to a resource after its check, while others are being changed, was not seen.
func TestEventsDuringARunAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a := newHeard("a/1")
		b := &long{thing: thing{node: node{"b/1", nil}}, during: func() {
			a.spoil()
			g.Touch(a.trigger())
		}}
		b.spoil()
		if err := g.Set(converge.Plan{Resources: []converge.Resource{a, b}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(21 * time.Second) // the run, and a moment
		synctest.Wait()
		if a.times() != 1 {
			t.Errorf("%d repairs of what drifted while something else was changed", a.times())
		}
	})
}

// TestBlockedIsNotDrivenByEvents: it is looked at when what is before it is right, not before.
func TestBlockedIsNotDrivenByEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a, b := newHeard("a/1"), newHeard("b/1", "a")
		a.spoil()
		a.fail(errors.New("no"))
		b.spoil()
		g.set(t, "one", a, b)
		for range 100 {
			g.Touch(b.trigger())
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(g.ended()); n > 120 {
			t.Errorf("%d runs for 100 events", n)
		}
		a.fail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if b.times() != 1 {
			t.Errorf("%d applies", b.times())
		}
	})
}

// TestStormOfEvents: events that mean nothing, without end, must not keep the machine busy; drift among them is repaired, and
// after the storm as quickly as ever.
func TestStormOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		a := newHeard("a/1")
		g.set(t, "one", a)
		storm := func(n int) {
			for range n {
				g.Touch(a.trigger())
				time.Sleep(50 * time.Millisecond)
			}
		}
		storm(20 * 120)
		if n := a.checks.Load(); n > 100 {
			t.Errorf("%d checks in two minutes of events that mean nothing", n)
		}
		a.spoil()
		storm(60)
		if a.times() != 1 {
			t.Errorf("%d repairs in the storm", a.times())
		}
		time.Sleep(10 * time.Second)
		g.Wake() // a check is no event
		synctest.Wait()
		a.spoil()
		g.Touch(a.trigger())
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		if a.times() != 2 {
			t.Error("after the storm it is still slow")
		}
	})
}

// TestLostEvents: a source that loses events has all checked soon, not all the time, and what fails keeps its pace.
func TestLostEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t)
		g.Missed() // with nothing to keep
		a, b := newHeard("a/1"), newHeard("b/1")
		b.spoil()
		b.fail(errors.New("no"))
		g.set(t, "one", a, b)
		a.spoil()
		g.Missed()
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		if a.times() != 1 {
			t.Fatalf("%d repairs of what no event told", a.times())
		}
		for range 600 {
			g.Missed()
			time.Sleep(100 * time.Millisecond)
		}
		if n, tried := a.checks.Load(), b.times(); n > 20 || tried > 8 {
			t.Errorf("%d checks and %d attempts in a minute of lost events", n, tried)
		}
	})
}
