package reconcile_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/state"
)

// inWorld runs f in a bubble of its own time with the agents at work.
func inWorld(t *testing.T, f func(ctx context.Context, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		w := newWorld(t)
		go w.agents(ctx)
		f(ctx, w)
	})
}

func TestLife(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.serve(ctx, nil)
		w.pool("web", 3, nil)
		if took := w.until("three machines are ready", w.ready("web", 3)); took > 15*time.Second {
			t.Errorf("three machines took %s, which boot in a second", took)
		}
		w.pool("web", 5, nil)
		w.until("five machines are ready", w.ready("web", 5))
		w.pool("web", 2, nil)
		w.until("two machines are left", w.ready("web", 2))
		for m := range w.store.Read().MachinesOf("web") {
			if m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_READY && m.GetSpec().GetIndex() > 2 {
				t.Errorf("%s is left of a pool of 2", m.GetSpec().GetSlot())
			}
		}
		w.remove("pools", "web")
		if took := w.until("the pool is gone", w.empty("web")); took > 10*time.Second {
			t.Errorf("deletion took %s", took)
		}
	})
}

func TestKilledMachineIsReplaced(t *testing.T) {
	for name, kill := range map[string]func(*providertest.Instance) bool{
		"stopped": func(i *providertest.Instance) bool { i.State = provider.Stopped; return false },
		"removed": func(*providertest.Instance) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(ctx context.Context, w *world) {
				w.serve(ctx, nil)
				w.pool("web", 3, nil)
				w.until("three machines are ready", w.ready("web", 3))
				old := w.store.Read().MachineNamed("web-2")
				w.cloud.Change(old.GetMetadata().GetName(), kill)
				took := w.until("web-2 is replaced", func(s *state.Snapshot) bool {
					return w.ready("web", 3)(s) && s.MachineNamed("web-2").GetMetadata().GetName() != old.GetMetadata().GetName()
				})
				if took < 20*time.Second {
					t.Errorf("replaced after %s: the agent was not silent for the full time", took)
				}
				if took > time.Minute {
					t.Errorf("replaced after %s", took)
				}
			})
		})
	}
}

func TestMachineKilledInMidBootIsReplaced(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.serve(ctx, nil)
		w.fail(func(slot string) bool { return slot == "web-1" })
		w.pool("web", 1, nil)
		w.until("it boots", func(s *state.Snapshot) bool {
			return s.MachineNamed("web-1").GetStatus().GetPhase() == provisionrv1.Phase_PHASE_JOINING
		})
		old := w.store.Read().MachineNamed("web-1")
		w.cloud.Change(old.GetMetadata().GetName(), func(i *providertest.Instance) bool { i.State = provider.Stopped; return false })
		w.until("it has failed", func(s *state.Snapshot) bool {
			return s.Machine(old.GetMetadata().GetName()).GetStatus().GetPhase() == provisionrv1.Phase_PHASE_FAILED
		})
		if console := w.store.Read().Machine(old.GetMetadata().GetName()).GetStatus().GetEvidence().GetConsole(); console == "" {
			t.Error("no console was kept")
		}
		w.fail(func(string) bool { return false })
		w.until("it is replaced", w.ready("web", 1))
	})
}

func TestDeleteWhileLaunching(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.cloud.LaunchLatency = 5 * time.Minute
		w.serve(ctx, nil)
		w.pool("web", 2, nil)
		w.until("it launches", func(s *state.Snapshot) bool {
			return s.MachineNamed("web-1").GetStatus().GetPhase() == provisionrv1.Phase_PHASE_LAUNCHING
		})
		time.Sleep(10 * time.Second)
		w.remove("pools", "web")
		if took := w.until("the pool is gone", w.empty("web")); took > time.Minute {
			t.Errorf("deletion waited %s for a launch that it could cut off", took)
		}
	})
}

// TestLostResponses has every response lost for a while: calls act and fail.
func TestLostResponses(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		var until atomic.Pointer[time.Time]
		lose := func() {
			end := time.Now().Add(40 * time.Second)
			until.Store(&end)
		}
		lose()
		w.cloud.SetFault(func(op, _ string) error {
			if (op == "lost-launch" || op == "lost-terminate") && time.Now().Before(*until.Load()) {
				return provider.Errorf(provider.Unknown, "connection reset")
			}
			return nil
		})
		w.serve(ctx, nil)
		w.pool("web", 3, nil)
		w.until("three machines are ready", w.ready("web", 3))
		lose()
		w.remove("pools", "web")
		w.until("the pool is gone", w.empty("web"))
	})
}

// TestUnknownListing cuts the provider off: nothing is terminated, launched or given up meanwhile.
func TestUnknownListing(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.serve(ctx, nil)
		w.pool("web", 3, nil)
		w.until("three machines are ready", w.ready("web", 3))
		w.cloud.SetFault(func(string, string) error { return provider.Errorf(provider.Unknown, "no route to host") })
		// Agents cannot be reached either: all that a leader sees says that the machines are dead.
		w.mu.Lock()
		w.sessions = map[string]bool{}
		w.signal(-1)
		w.broken = func(string) bool { return true }
		w.mu.Unlock()
		before := len(w.cloud.Instances())
		time.Sleep(3 * time.Minute)
		if got := len(w.cloud.Instances()); got != before {
			t.Fatalf("%d of %d machines survived an unreachable provider", got, before)
		}
		for m := range w.store.Read().MachinesOf("web") {
			if m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_UNREACHABLE {
				t.Errorf("%s is %s", m.GetSpec().GetSlot(), m.GetStatus().GetPhase())
			}
		}
		w.cloud.SetFault(nil)
		w.fail(func(string) bool { return false })
		w.until("they are back", w.ready("web", 3))
		for m := range w.store.Read().MachinesOf("web") {
			if w.cloud.Launched(m.GetMetadata().GetName()) != 1 || m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_GONE {
				t.Errorf("%s was replaced", m.GetSpec().GetSlot())
			}
		}
	})
}

func TestLaunchErrors(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		var calls atomic.Int32
		until := time.Now().Add(2 * time.Minute)
		w.cloud.SetFault(func(op, _ string) error {
			if op != "launch" || !time.Now().Before(until) {
				return nil
			}
			calls.Add(1)
			return provider.Errorf(provider.NoCapacity, "no room")
		})
		w.serve(ctx, nil)
		w.pool("web", 1, nil)
		w.until("it is ready in the end", w.ready("web", 1))
		if n := calls.Load(); n > 6 {
			t.Errorf("%d launches in two minutes without capacity", n)
		}
		delayed := 0
		for e := range w.store.Read().Events(0) {
			if e.GetReason() == "LaunchDelayed" && e.GetWarning() && e.GetSlot() == "web-1" {
				delayed++
			}
		}
		if delayed != 1 {
			t.Errorf("%d events tell of the delay, want one", delayed)
		}
	})
}

func TestInvalidLaunchFailsAndBacksOff(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.cloud.SetFault(func(op, _ string) error {
			if op == "launch" {
				return provider.Errorf(provider.Invalid, "no such image")
			}
			return nil
		})
		w.serve(ctx, nil)
		w.pool("web", 1, nil)
		time.Sleep(10 * time.Minute)
		failures, holding := 0, 0
		for m := range w.store.Read().MachinesOf("web") {
			if m.GetStatus().GetEvidence() != nil {
				failures++
			}
			if m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_GONE {
				holding++
			}
		}
		if failures < 3 || failures > 8 || holding != 1 {
			t.Errorf("in ten minutes %d machines failed, %d hold the slot:\n%s", failures, holding, w.describe())
		}
		w.cloud.SetFault(nil)
		w.until("it is ready once the provider takes it", w.ready("web", 1))
	})
}

func TestOrphanIsReaped(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		p := w.cloud.Provider("test")
		_, err := p.Launch(ctx, provider.LaunchRequest{Request: &provisionrv1.LaunchRequest{MachineId: "m-orphan", Slot: "x-1"}})
		if err != nil {
			t.Fatal(err)
		}
		foreign := w.cloud.Provider("another")
		if _, err := foreign.Launch(ctx, provider.LaunchRequest{Request: &provisionrv1.LaunchRequest{MachineId: "m-foreign", Slot: "y-1"}}); err != nil {
			t.Fatal(err)
		}
		w.serve(ctx, nil)
		time.Sleep(9 * time.Minute)
		if n := len(w.cloud.Instances()); n != 2 {
			t.Fatalf("%d instances are left before the grace period is over", n)
		}
		took := w.until("the orphan is reaped", func(*state.Snapshot) bool { return len(w.cloud.Instances()) == 1 })
		if took > 2*time.Minute || w.cloud.Instances()[0].MachineID != "m-foreign" {
			t.Errorf("after %s: %s", took, w.describe())
		}
	})
}

// TestCrash kills the server at every point between two steps of a scenario, once each, and lets another one go on.
func TestCrash(t *testing.T) {
	points := scenario(t, -1)
	if points < 40 {
		t.Fatalf("the scenario has only %d points", points)
	}
	for n := range points {
		scenario(t, n)
		if t.Failed() {
			t.Fatalf("crash at point %d of %d", n, points)
		}
	}
}

// scenario creates, shrinks, repairs and deletes a pool, with a crash at the nth point (none if negative). It returns
// how many points there were.
func scenario(t *testing.T, crash int) (points int) {
	t.Helper()
	inWorld(t, func(ctx context.Context, w *world) {
		where := fmt.Sprintf("crash at point %d", crash)
		hook := func(s *server, point string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if s.dead.Err() != nil {
				return
			}
			if points == crash {
				t.Logf("crash at point %d: %s", points, point)
				s.die()
			}
			points++
		}
		go func() {
			for ctx.Err() == nil {
				s := w.serve(ctx, hook)
				<-s.done
			}
		}()
		w.pool("web", 2, nil)
		w.until(where+": two machines are ready", w.ready("web", 2))
		w.cloud.Change(w.store.Read().MachineNamed("web-1").GetMetadata().GetName(), func(i *providertest.Instance) bool {
			i.State = provider.Stopped
			return false
		})
		time.Sleep(2 * time.Second)
		w.until(where+": web-1 is replaced", w.ready("web", 2))
		w.pool("web", 1, nil)
		w.until(where+": one machine is left", w.ready("web", 1))
		w.remove("pools", "web")
		w.until(where+": all is gone", w.empty("web"))
		time.Sleep(2 * time.Hour)
		if s := w.describe(); s != "" {
			t.Errorf("%s left:\n%s", where, s)
		}
	})
	return points
}
