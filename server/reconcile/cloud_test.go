package reconcile_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
	"github.com/provisionr/provisionr/server/state"
)

func types(names ...string) func(*provisionrv1.PoolSpec) {
	return func(s *provisionrv1.PoolSpec) {
		s.Hardware = &provisionrv1.Hardware{Types: names}
		s.Placement = &provisionrv1.Placement{Zones: []string{"sim-a"}}
	}
}

// TestNextChoice has the first type out of capacity after two machines: the others are of the second, and the first is asked
// for no more often than launches were under way.
func TestNextChoice(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.cloud.SetCapacity("sim-a", "s1.small", 2)
		w.Start(ctx, nil)
		w.Pool("web", 30, types("s1.small", "s1.medium"))
		if took := w.Until("thirty machines are ready", w.Ready("web", 30)); took > time.Minute {
			t.Errorf("the next choice took %s", took)
		}
		kinds := map[string]int{}
		for _, i := range w.cloud.Instances() {
			kinds[i.Request.GetChoice().GetType()]++
			if m := w.Read().Machine(i.MachineID); m.GetStatus().GetLaunch().GetChoice().GetType() != i.Request.GetChoice().GetType() {
				t.Errorf("%s was launched as %s, and recorded as %s", i.MachineID, i.Request.GetChoice().GetType(), m.GetStatus().GetLaunch().GetChoice().GetType())
			}
		}
		if kinds["s1.small"] != 2 || kinds["s1.medium"] != 28 {
			t.Errorf("types %v", kinds)
		}
		if n := w.cloud.Calls("resolve"); n > 2 {
			t.Errorf("%d offers were asked for", n)
		}
		if n := w.events("LaunchDelayed"); n != 0 {
			t.Errorf("%d events tell of a delay that there was not", n)
		}
	})
}

// TestNoChoice waits for capacity, says so where people look, and takes it when it is back.
func TestNoChoice(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.cloud.SetCapacity("", "", 0)
		w.Start(ctx, nil)
		w.Pool("web", 1, types("s1.small", "s1.medium"))
		w.Until("the pool says why it waits", func(s *state.Snapshot) bool {
			return strings.Contains(state.PoolStatus(s, s.Pool("web")).GetMessage(), "web-1 is waiting: no capacity: none of s1.small in sim-a, s1.medium in sim-a")
		})
		first := w.Machines("web")[0].GetMetadata().GetName()
		time.Sleep(40 * time.Minute)
		if w.Machines("web")[0].GetMetadata().GetName() != first || w.cloud.Calls("launch") > 20 {
			t.Errorf("%d launches, and machines were replaced:\n%s", w.cloud.Calls("launch"), w.Describe())
		}
		w.cloud.SetCapacity("", "", -1)
		if took := w.Until("it is ready", w.Ready("web", 1)); took > 6*time.Minute {
			t.Errorf("capacity was taken after %s", took)
		}
	})
}

// TestChangeWhileRefused changes what is wanted while nothing of it can be had.
func TestChangeWhileRefused(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.cloud.SetCapacity("sim-a", "", 0)
		w.Start(ctx, nil)
		w.Pool("web", 2, types("s1.small"))
		w.Until("it waits", func(s *state.Snapshot) bool { return w.events("LaunchDelayed") > 0 })
		w.Pool("web", 2, func(s *provisionrv1.PoolSpec) {
			s.Placement = &provisionrv1.Placement{Zones: []string{"sim-b"}}
		})
		if took := w.Until("the other zone is taken", w.Ready("web", 2)); took > time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

func TestResolveErrors(t *testing.T) {
	for kind, want := range map[provider.Kind]string{
		provider.Invalid: "MachineFailed", provider.QuotaExceeded: "LaunchDelayed", provider.Unauthorized: "ProviderUnauthorized",
	} {
		t.Run(string(kind), func(t *testing.T) {
			inWorld(t, func(ctx context.Context, w *world) {
				w.cloud.SetFault(func(op, _ string) error {
					if op == "resolve" {
						return provider.Errorf(kind, "as the test says")
					}
					return nil
				})
				w.Start(ctx, nil)
				w.Pool("web", 1)
				time.Sleep(10 * time.Minute)
				if w.events(want) == 0 || len(w.cloud.Instances()) > 0 {
					t.Errorf("%d events %s:\n%s", w.events(want), want, w.Describe())
				}
				if message := state.PoolStatus(w.Read(), w.Read().Pool("web")).GetMessage(); !strings.Contains(message, "as the test says") {
					t.Errorf("the pool says %q", message)
				}
				w.cloud.SetFault(nil)
				w.Until("it is ready", w.Ready("web", 1))
			})
		})
	}
}

// TestUnauthorized shows what is wrong once as an event, and on the pool for as long as it lasts.
func TestUnauthorized(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		var off atomic.Bool
		w.cloud.SetFault(func(op, _ string) error {
			if off.Load() || strings.HasPrefix(op, "lost-") {
				return nil
			}
			return provider.Errorf(provider.Unauthorized, "no credentials in the chain")
		})
		w.Start(ctx, nil)
		w.Pool("web", 1)
		time.Sleep(30 * time.Minute)
		if n := w.events("ProviderUnauthorized"); n != 1 {
			t.Errorf("%d events", n)
		}
		if message := state.PoolStatus(w.Read(), w.Read().Pool("web")).GetMessage(); !strings.Contains(message, "no credentials in the chain") {
			t.Errorf("the pool says %q", message)
		}
		off.Store(true)
		w.Until("it is ready", w.Ready("web", 1))
	})
}

// TestRateLimited holds all changing calls back for as long as the provider asks.
func TestRateLimited(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		var refused atomic.Pointer[time.Time]
		w.cloud.SetFault(func(op, _ string) error {
			if op != "launch" {
				return nil
			}
			now := time.Now()
			if refused.Load() == nil {
				refused.Store(&now)
				return &provider.Error{Kind: provider.RateLimited, Message: "slow down", After: 90 * time.Second}
			}
			if since := now.Sub(*refused.Load()); since > 100*time.Millisecond && since < 90*time.Second {
				t.Errorf("a call %s after the provider asked for rest", since)
			}
			return nil
		})
		w.Start(ctx, nil)
		w.Pool("web", 1)
		w.Until("it launches", func(*state.Snapshot) bool { return refused.Load() != nil })
		w.Pool("db", 3)
		w.Until("all are ready", func(s *state.Snapshot) bool { return w.PoolReady("web", 1)(s) && w.PoolReady("db", 3)(s) })
	})
}

// TestFirewallGroups follows the groups of two pools through their lives.
func TestFirewallGroups(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.Start(ctx, nil)
		w.Pool("web", 2)
		w.Until("web is ready", w.PoolReady("web", 2))
		if rules, ok := w.cloudRules("web"); !ok || !slices.Contains(rules, "allow tcp 22 from 0.0.0.0/0") {
			t.Errorf("rules of web: %v", rules)
		}
		w.Pool("db", 1, func(s *provisionrv1.PoolSpec) {
			s.Firewall = &provisionrv1.Firewall{SshFrom: []string{"192.0.2.0/24"}, Rules: []*provisionrv1.FirewallRule{
				{Name: "sql", Ports: []string{"5432"}, From: []string{"pool:web", "self"}},
			}}
		})
		w.Until("db is ready", w.PoolReady("db", 1))
		want := []string{"allow icmp from 0.0.0.0/0", "allow icmp6 from ::/0", "allow tcp 22 from 192.0.2.0/24",
			"allow tcp 5432 from pool web", "allow tcp 5432 from pool db"}
		if rules, _ := w.cloudRules("db"); !slices.Equal(slices.Sorted(slices.Values(rules)), slices.Sorted(slices.Values(want))) {
			t.Errorf("rules of db: %v", rules)
		}
		w.cloud.AddRule(reconciletest.ClusterID, "db", provider.FirewallRule{Protocol: "tcp", First: 1, Last: 65535, Pool: "web"})
		w.Until("drift is repaired", func(*state.Snapshot) bool {
			rules, _ := w.cloudRules("db")
			return len(rules) == len(want)
		})
		w.Remove("pools", "db")
		w.Until("the group of db is gone", func(*state.Snapshot) bool { _, ok := w.cloudRules("db"); return !ok })
		w.Remove("pools", "web")
		w.Until("the group of web is gone", func(*state.Snapshot) bool { _, ok := w.cloudRules("web"); return !ok })
		if n := len(w.cloud.Instances()); n > 0 {
			t.Errorf("%d instances outlive their groups", n)
		}
	})
}

// TestFirewallFails tells what machines wait for whose group cannot be made.
func TestFirewallFails(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.cloud.SetFault(func(op, _ string) error {
			if op == "firewall" {
				return provider.Errorf(provider.QuotaExceeded, "too many groups")
			}
			return nil
		})
		w.Start(ctx, nil)
		w.Pool("web", 1)
		w.Until("it is told", func(*state.Snapshot) bool { return w.events("FirewallFailed") == 1 })
		w.cloud.SetFault(nil)
		w.Until("web is ready", w.PoolReady("web", 1))
	})
}

// TestOfferOfAnotherAccount changes a provider: what it offered before does not count.
func TestOfferOfAnotherAccount(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.Start(ctx, nil)
		w.Pool("web", 1)
		w.Until("web is ready", w.PoolReady("web", 1))
		before := w.cloud.Calls("resolve")
		changed := reconciletest.ProviderObject("local")
		changed.GetProvider().Spec.CallsPerSecond = 100
		w.Pool("web", 0)
		w.Until("its machine is gone", func(s *state.Snapshot) bool { return state.MachinesAt(s, "local") == 0 })
		w.Apply(changed)
		w.Pool("web", 1)
		w.Until("another is ready", w.PoolReady("web", 1))
		if w.cloud.Calls("resolve") == before {
			t.Error("an offer of the provider as it was before is taken")
		}
	})
}

func (w *world) cloudRules(pool string) (texts []string, ok bool) {
	rules, ok := w.cloud.Rules(reconciletest.ClusterID, pool)
	for _, r := range rules {
		texts = append(texts, r.String())
	}
	return texts, ok
}

// TestDuplicates makes every machine twice: none is ready before one is left, which is the recorded one.
func TestDuplicates(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.remade = true
		twice := map[string]bool{}
		w.Start(ctx, nil)
		w.Pool("web", 3)
		w.Until("three machines are ready", func(s *state.Snapshot) bool {
			for _, i := range w.cloud.Instances() {
				if !twice[i.MachineID] {
					twice[i.MachineID] = true
					w.cloud.Duplicate(reconciletest.ClusterID, i.MachineID)
				}
			}
			return w.Ready("web", 3)(s)
		})
		for _, i := range w.cloud.Instances() {
			if m := w.Read().Machine(i.MachineID); m.GetStatus().GetProviderId() != i.ProviderID {
				t.Errorf("machine %s is recorded as %s, and %s is left", i.MachineID, m.GetStatus().GetProviderId(), i.ProviderID)
			}
		}
		if n := w.events("DuplicatePruned"); n < 3 {
			t.Errorf("%d duplicates were pruned", n)
		}
	})
}

// TestNotice has the provider announce the end of a machine: an heir takes over before, and the name is never without a
// machine.
func TestNotice(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.Start(ctx, nil)
		w.Pool("web", 3)
		w.Until("three machines are ready", w.Ready("web", 3))
		end := time.Now().Add(2 * time.Minute)
		old := w.change("web-2", func(i *providertest.Instance) bool {
			i.Notice = &provisionrv1.Notice{Kind: "spot", At: timestamppb.New(end), Message: "reclaimed"}
			return false
		})
		w.Until("web-2 is another machine", func(s *state.Snapshot) bool {
			holder := s.MachineNamed("web-2")
			if phase := holder.GetStatus().GetPhase(); holder.GetMetadata().GetName() == old && phase != provisionrv1.Phase_PHASE_READY {
				t.Errorf("the holder of web-2 is %s before there is another", phase)
			}
			return holder.GetMetadata().GetName() != old
		})
		if phase := w.Read().Machine(old).GetStatus().GetPhase(); phase != provisionrv1.Phase_PHASE_DRAINING {
			t.Errorf("the old machine is %s", phase)
		}
		w.Until("three machines are ready", w.Ready("web", 3))
		if time.Now().After(end) {
			t.Error("the machine was replaced after its end")
		}
		if w.events("MachineNotice") != 1 || w.events("SlotHandedOver") != 1 {
			t.Errorf("%d notices, %d handovers", w.events("MachineNotice"), w.events("SlotHandedOver"))
		}
	})
}

// TestNoticeWithdrawn has no heir left behind.
func TestNoticeWithdrawn(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.Start(ctx, nil)
		w.Pool("web", 2)
		w.Until("two machines are ready", w.Ready("web", 2))
		w.Break(func(slot string) bool { return false })
		w.cloud.LaunchLatency = time.Minute
		old := w.change("web-1", func(i *providertest.Instance) bool {
			i.Notice = &provisionrv1.Notice{Kind: "maintenance"}
			return false
		})
		w.Until("there is an heir", func(s *state.Snapshot) bool { return s.Slot("web-1").GetHeir() != "" })
		w.cloud.Change(old, func(i *providertest.Instance) bool { i.Notice = nil; return false })
		w.Until("the heir is gone", func(s *state.Snapshot) bool { return s.Slot("web-1").GetHeir() == "" && w.Ready("web", 2)(s) })
		if w.Read().MachineNamed("web-1").GetMetadata().GetName() != old {
			t.Error("web-1 is another machine")
		}
	})
}

// TestFarMaintenance waits until ten minutes before.
func TestFarMaintenance(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.Start(ctx, nil)
		w.Pool("web", 1)
		w.Until("it is ready", w.Ready("web", 1))
		end := time.Now().Add(40 * time.Minute)
		old := w.change("web-1", func(i *providertest.Instance) bool {
			i.Notice = &provisionrv1.Notice{Kind: "maintenance", At: timestamppb.New(end)}
			return false
		})
		w.Until("web-1 is another machine", func(s *state.Snapshot) bool { return s.MachineNamed("web-1").GetMetadata().GetName() != old })
		if left := time.Until(end); left > 10*time.Minute || left < 9*time.Minute {
			t.Errorf("replaced %s before the maintenance", left)
		}
	})
}

// TestHolderDiesBeforeItsHeirIsReady promotes the heir at once.
func TestHolderDiesBeforeItsHeirIsReady(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.Start(ctx, nil)
		w.Pool("web", 2)
		w.Until("two machines are ready", w.Ready("web", 2))
		w.cloud.LaunchLatency = 2 * time.Minute
		old := w.change("web-1", func(i *providertest.Instance) bool { i.Notice = &provisionrv1.Notice{Kind: "spot"}; return false })
		w.Until("there is an heir", func(s *state.Snapshot) bool { return s.Slot("web-1").GetHeir() != "" })
		heir := w.Read().Slot("web-1").GetHeir()
		w.cloud.Change(old, func(*providertest.Instance) bool { return true })
		w.Until("the heir holds web-1", func(s *state.Snapshot) bool { return s.Slot("web-1").GetHolder() == heir })
		w.Until("two machines are ready", w.Ready("web", 2))
		if w.Read().Slot("web-1").GetHolder() != heir {
			t.Error("another machine was made")
		}
	})
}

// TestSurge replaces stale machines by heirs: never more than one beside the size, never fewer ready but for the moment of a
// handover.
func TestSurge(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		surge := uint32(1)
		safe := func(s *provisionrv1.PoolSpec) { s.Safety.MaxSurge = &surge }
		w.Start(ctx, nil)
		w.Pool("web", 3, safe)
		w.Until("three machines are ready", w.Ready("web", 3))
		w.Pool("web", 3, safe, types("s1.large"))
		w.Until("three new machines are ready", func(s *state.Snapshot) bool {
			most, least, fresh := len(w.cloud.Instances()), 0, 0
			for slot := range s.SlotsOf("web") {
				if s.Machine(slot.GetHolder()).GetStatus().GetPhase() == provisionrv1.Phase_PHASE_READY {
					least++
				}
			}
			for _, i := range w.cloud.Instances() {
				if i.Request.GetChoice().GetType() == "s1.large" {
					fresh++
				}
			}
			if most > 4 || least < 2 {
				t.Errorf("%d machines, %d ready:\n%s", most, least, w.Describe())
			}
			return fresh == 3 && w.Ready("web", 3)(s)
		})
		if n := w.events("SlotHandedOver"); n != 3 {
			t.Errorf("%d handovers", n)
		}
	})
}
