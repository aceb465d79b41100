package reconcile_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
	"github.com/provisionr/provisionr/server/state"
)

func TestLife(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.Start(ctx, nil)
		w.Pool("web", 3)
		if took := w.Until("three machines are ready", w.Ready("web", 3)); took > 15*time.Second {
			t.Errorf("three machines took %s, which boot in a second", took)
		}
		w.Pool("web", 5)
		w.Until("five machines are ready", w.Ready("web", 5))
		w.Pool("web", 2)
		w.Until("two machines are left", w.Ready("web", 2))
		for m := range w.Read().MachinesOf("web") {
			if m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_READY && m.GetSpec().GetIndex() > 2 {
				t.Errorf("%s is left of a pool of 2", m.GetSpec().GetSlot())
			}
		}
		w.Remove("pools", "web")
		if took := w.Until("the pool is gone", w.Empty("web")); took > 10*time.Second {
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
				w.Start(ctx, nil)
				w.Pool("web", 3)
				w.Until("three machines are ready", w.Ready("web", 3))
				old := w.Read().MachineNamed("web-2")
				w.cloud.Change(old.GetMetadata().GetName(), kill)
				took := w.Until("web-2 is replaced", func(s *state.Snapshot) bool {
					return w.Ready("web", 3)(s) && s.MachineNamed("web-2").GetMetadata().GetName() != old.GetMetadata().GetName()
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
		w.Start(ctx, nil)
		w.Break(func(slot string) bool { return slot == "web-1" })
		w.Pool("web", 1)
		w.Until("it boots", func(s *state.Snapshot) bool {
			return s.MachineNamed("web-1").GetStatus().GetPhase() == provisionrv1.Phase_PHASE_JOINING
		})
		old := w.Read().MachineNamed("web-1")
		w.cloud.Change(old.GetMetadata().GetName(), func(i *providertest.Instance) bool { i.State = provider.Stopped; return false })
		w.Until("it has failed", func(s *state.Snapshot) bool {
			return s.Machine(old.GetMetadata().GetName()).GetStatus().GetPhase() == provisionrv1.Phase_PHASE_FAILED
		})
		if console := w.Read().Machine(old.GetMetadata().GetName()).GetStatus().GetEvidence().GetConsole(); console == "" {
			t.Error("no console was kept")
		}
		w.Break(func(string) bool { return false })
		w.Until("it is replaced", w.Ready("web", 1))
	})
}

func TestDeleteWhileLaunching(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.cloud.LaunchLatency = 5 * time.Minute
		w.Start(ctx, nil)
		w.Pool("web", 2)
		w.Until("it launches", func(s *state.Snapshot) bool {
			return s.MachineNamed("web-1").GetStatus().GetPhase() == provisionrv1.Phase_PHASE_LAUNCHING
		})
		time.Sleep(10 * time.Second)
		w.Remove("pools", "web")
		if took := w.Until("the pool is gone", w.Empty("web")); took > time.Minute {
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
		w.Start(ctx, nil)
		w.Pool("web", 3)
		w.Until("three machines are ready", w.Ready("web", 3))
		lose()
		w.Remove("pools", "web")
		w.Until("the pool is gone", w.Empty("web"))
	})
}

// TestUnknownListing cuts the provider off: nothing is terminated, launched or given up meanwhile.
func TestUnknownListing(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.Start(ctx, nil)
		w.Pool("web", 3)
		w.Until("three machines are ready", w.Ready("web", 3))
		w.cloud.SetFault(func(string, string) error { return provider.Errorf(provider.Unknown, "no route to host") })
		// Agents cannot be reached either: all that a leader sees says that the machines are dead.
		w.Break(func(string) bool { return true })
		before := len(w.cloud.Instances())
		time.Sleep(3 * time.Minute)
		if got := len(w.cloud.Instances()); got != before {
			t.Fatalf("%d of %d machines survived an unreachable provider", got, before)
		}
		for m := range w.Read().MachinesOf("web") {
			if m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_UNREACHABLE {
				t.Errorf("%s is %s", m.GetSpec().GetSlot(), m.GetStatus().GetPhase())
			}
		}
		w.cloud.SetFault(nil)
		w.Break(func(string) bool { return false })
		w.Until("they are back", w.Ready("web", 3))
		for m := range w.Read().MachinesOf("web") {
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
		w.Start(ctx, nil)
		w.Pool("web", 1)
		w.Until("it is ready in the end", w.Ready("web", 1))
		if n := calls.Load(); n > 9 {
			t.Errorf("%d launches in two minutes without capacity: the cloud offers three types in three zones", n)
		}
		delayed := 0
		for e := range w.Read().Events(0) {
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
		w.Start(ctx, nil)
		w.Pool("web", 1)
		time.Sleep(10 * time.Minute)
		failures, holding := 0, 0
		for m := range w.Read().MachinesOf("web") {
			if m.GetStatus().GetEvidence() != nil {
				failures++
			}
			if m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_GONE {
				holding++
			}
		}
		if failures < 3 || failures > 8 || holding != 1 {
			t.Errorf("in ten minutes %d machines failed, %d hold the slot:\n%s", failures, holding, w.Describe())
		}
		w.cloud.SetFault(nil)
		w.Until("it is ready once the provider takes it", w.Ready("web", 1))
	})
}

func TestOrphanIsReaped(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		p := w.cloud.Provider(reconciletest.ClusterID)
		_, err := p.Launch(ctx, provider.LaunchRequest{Request: &provisionrv1.LaunchRequest{MachineId: "m-orphan", Slot: "x-1"}})
		if err != nil {
			t.Fatal(err)
		}
		foreign := w.cloud.Provider("another")
		if _, err := foreign.Launch(ctx, provider.LaunchRequest{Request: &provisionrv1.LaunchRequest{MachineId: "m-foreign", Slot: "y-1"}}); err != nil {
			t.Fatal(err)
		}
		w.Start(ctx, nil)
		time.Sleep(9 * time.Minute)
		if n := len(w.cloud.Instances()); n != 2 {
			t.Fatalf("%d instances are left before the grace period is over", n)
		}
		took := w.Until("the orphan is reaped", func(*state.Snapshot) bool { return len(w.cloud.Instances()) == 1 })
		if took > 2*time.Minute || w.cloud.Instances()[0].MachineID != "m-foreign" {
			t.Errorf("after %s: %s", took, w.Describe())
		}
	})
}

// TestCrash kills the server at every point between two steps of a scenario, once each, and lets another one go on.
func TestCrash(t *testing.T) {
	points := scenario(t, -1)
	if points < 70 {
		t.Fatalf("the scenario has only %d points", points)
	}
	for n := range points {
		scenario(t, n)
		if t.Failed() {
			t.Fatalf("crash at point %d of %d", n, points)
		}
	}
}

// scenario creates a pool whose first type is out of capacity, repairs it, hands a slot over after a notice, prunes a
// duplicate, shrinks it and deletes it with its firewall group, with a crash at the nth point (none if negative). It returns
// how many points there were.
func scenario(t *testing.T, crash int) (points int) {
	t.Helper()
	inWorld(t, func(ctx context.Context, w *world) {
		where := fmt.Sprintf("crash at point %d", crash)
		var mu sync.Mutex
		w.Keep(ctx, func(s *reconciletest.Server, point string) {
			mu.Lock()
			defer mu.Unlock()
			if !s.Alive() {
				return
			}
			if points == crash {
				t.Logf("crash at point %d: %s", points, point)
				s.Kill()
			}
			points++
		})
		w.cloud.SetCapacity("sim-a", "s1.small", 1)
		w.Pool("web", 2, types("s1.small", "s1.medium"))
		w.Until(where+": two machines are ready", w.Ready("web", 2))
		w.cloud.Change(w.Read().MachineNamed("web-1").GetMetadata().GetName(), func(i *providertest.Instance) bool {
			i.State = provider.Stopped
			return false
		})
		time.Sleep(2 * time.Second)
		w.Until(where+": web-1 is replaced", w.Ready("web", 2))
		old := w.change("web-2", func(i *providertest.Instance) bool { i.Notice = &provisionrv1.Notice{Kind: "spot"}; return false })
		w.Until(where+": web-2 is handed over", func(s *state.Snapshot) bool {
			return s.Slot("web-2").GetHolder() != old && w.Ready("web", 2)(s)
		})
		w.remade = true
		w.cloud.Duplicate(reconciletest.ClusterID, w.Read().Slot("web-1").GetHolder())
		w.Until(where+": the duplicate is pruned", w.Ready("web", 2))
		w.Pool("web", 1, types("s1.small", "s1.medium"))
		w.Until(where+": one machine is left", w.Ready("web", 1))
		w.Remove("pools", "web")
		w.Until(where+": all is gone", w.Empty("web"))
		time.Sleep(75 * time.Minute)
		if s := w.Describe(); s != "" {
			t.Errorf("%s left:\n%s", where, s)
		}
		if _, ok := w.cloud.Rules(reconciletest.ClusterID, "web"); ok {
			t.Errorf("%s left a firewall group", where)
		}
	})
	return points
}
