package reconcile_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/reconcile"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
	"github.com/provisionr/provisionr/server/state"
)

const (
	readyPhase = provisionrv1.Phase_PHASE_READY
	holds      = provisionrv1.ProofState_PROOF_STATE_PROVEN
)

// mustBoot makes a machine say that it must boot again.
func mustBoot(m *provisionrv1.Machine) {
	m.Status.Agent.BootId = "b1"
	m.Status.Facts = &provisionrv1.Facts{RebootRequired: "a new kernel"}
}

func coordinated(p *provisionrv1.Pool) {
	p.Spec.OsPolicy = &provisionrv1.OsPolicy{Reboot: "coordinated"}
}

// newRebootScene is a scene of a cluster that knows reboots.
func newRebootScene(size uint32, change func(*provisionrv1.Pool)) *scene {
	s := newScene(size, change)
	s.tx.PutCluster(&provisionrv1.Cluster{Id: "c", FeatureLevel: 3})
	return s
}

func TestPlanReboots(t *testing.T) {
	now := epoch.Add(10 * time.Minute)
	booting := func(since, deadline time.Duration) func(*provisionrv1.Machine) {
		return func(m *provisionrv1.Machine) {
			mustBoot(m)
			m.Status.Reboot = &provisionrv1.Reboot{
				BootId: "b1", Reason: "a new kernel", Since: timestamppb.New(now.Add(since)), Deadline: timestamppb.New(now.Add(deadline)),
			}
		}
	}
	last := func(boot string, since time.Duration) func(*provisionrv1.Machine) {
		return func(m *provisionrv1.Machine) {
			mustBoot(m)
			m.Status.LastReboot = &provisionrv1.Reboot{BootId: boot, Since: timestamppb.New(now.Add(since)), Deadline: timestamppb.New(now.Add(since + 10*time.Minute))}
		}
	}
	two := func(pool func(*provisionrv1.Pool), first, second func(*provisionrv1.Machine)) *scene {
		return newRebootScene(2, pool).proof(1, 1, holds).proof(2, 2, holds).machine(1, readyPhase, first).machine(2, readyPhase, second)
	}
	for name, tt := range map[string]struct {
		scene *scene
		want  []string
	}{
		"not asked for":         {two(nil, mustBoot, mustBoot), nil},
		"the lowest one first":  {two(coordinated, mustBoot, mustBoot), []string{"reboot m-web-1: a new kernel"}},
		"the one that needs it": {two(coordinated, nil, mustBoot), []string{"reboot m-web-2: a new kernel"}},
		"one at a time":         {two(coordinated, booting(-5*time.Second, time.Minute), mustBoot), nil},
		"asked again":           {two(coordinated, booting(-20*time.Second, time.Minute), mustBoot), []string{"reboot m-web-1: a new kernel"}},
		"not in time": {two(coordinated, booting(-11*time.Minute, -time.Second), mustBoot), []string{
			"move m-web-1 to degraded: it was to boot again by 2026-01-01T00:09:59Z and has not",
		}},
		"an overdue one stays degraded": {
			newRebootScene(2, coordinated).proof(1, 1, holds).proof(2, 2, holds).
				machine(1, provisionrv1.Phase_PHASE_DEGRADED, last("b1", -time.Hour)).machine(2, readyPhase, mustBoot),
			[]string{"say RebootHeld: machines that must boot again wait: 1 are not ready, and max_unavailable is 1"},
		},
		"it has booted not long ago":   {two(coordinated, last("b0", -time.Hour), nil), nil},
		"it has booted the day before": {two(coordinated, last("b0", -25*time.Hour), nil), []string{"reboot m-web-1: a new kernel"}},
		"the budget is used up": {
			newRebootScene(2, coordinated).proof(1, 1, holds).machine(1, readyPhase, mustBoot).
				machine(2, provisionrv1.Phase_PHASE_CONVERGING, nil), nil,
		},
		"another converges": {two(coordinated, mustBoot, func(m *provisionrv1.Machine) { m.Status.Agent.DesiredHash = "old" }), nil},
		"a higher budget": {two(func(p *provisionrv1.Pool) {
			coordinated(p)
			p.Spec.Safety.MaxUnavailable = new(uint32)
			*p.Spec.Safety.MaxUnavailable = 2
		}, mustBoot, func(m *provisionrv1.Machine) { m.Status.Agent.DesiredHash = "old" }), []string{"reboot m-web-1: a new kernel"}},
		"no budget at all": {two(func(p *provisionrv1.Pool) {
			coordinated(p)
			p.Spec.Safety.MaxUnavailable = new(uint32)
		}, mustBoot, nil), []string{"say RebootHeld: machines that must boot again wait: 0 are not ready, and max_unavailable is 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.scene.plan(t, now); !slices.Equal(got, tt.want) {
				t.Errorf("planned %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAskedAgainOnlyAfterAWhile(t *testing.T) {
	now := epoch.Add(10 * time.Minute)
	s := newRebootScene(1, coordinated).proof(1, 1, holds).machine(1, readyPhase, func(m *provisionrv1.Machine) {
		mustBoot(m)
		m.Status.Reboot = &provisionrv1.Reboot{BootId: "b1", Since: timestamppb.New(now.Add(-time.Minute)), Deadline: timestamppb.New(now.Add(time.Minute))}
	})
	s.view.Asked = map[string]time.Time{"m-web-1": now.Add(-10 * time.Second)}
	if got := s.plan(t, now); got != nil {
		t.Errorf("asked again after ten seconds: %q", got)
	}
	if got := s.plan(t, now.Add(25*time.Second)); len(got) != 1 {
		t.Errorf("after half a minute: %q", got)
	}
}

func TestMayReboot(t *testing.T) {
	s := newRebootScene(3, nil).machine(1, readyPhase, nil).machine(2, readyPhase, nil).machine(3, provisionrv1.Phase_PHASE_DEGRADED, nil)
	s.plan(t, epoch)
	snapshot := s.view.Snapshot
	if err := reconcile.MayReboot(snapshot, snapshot.Machine("m-web-1")); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "1 other machine") {
		t.Errorf("beside a degraded one: %v", err)
	}
	if err := reconcile.MayReboot(snapshot, snapshot.Machine("m-web-3")); err != nil {
		t.Errorf("the degraded one itself: %v", err)
	}
}

// TestCoordinatedReboots: every machine that must boots once, one at a time, wherever the leader dies.
func TestCoordinatedReboots(t *testing.T) {
	for _, crash := range []string{"", "reboot.before", "reboot.committed", "reboot.called"} {
		t.Run("crash at "+crash, func(t *testing.T) {
			inWorld(t, func(ctx context.Context, w *world) {
				crashes := map[string]bool{}
				w.Keep(ctx, func(s *reconciletest.Server, point string) {
					if point == crash && !crashes[point] {
						crashes[point] = true
						s.Kill()
					}
				})
				w.Pool("web", 3, func(s *provisionrv1.PoolSpec) { s.OsPolicy = &provisionrv1.OsPolicy{Reboot: "coordinated"} })
				w.Until("three machines are ready", w.Ready("web", 3))
				w.SetReboots(reconciletest.Reboots{
					Required: func(_ string, boots int) string { return []string{"a new kernel", ""}[min(boots, 1)] },
					Takes:    20 * time.Second,
				})
				w.Until("all have booted", func(s *state.Snapshot) bool {
					away := 0
					connected, _ := w.Connected()
					for _, m := range w.Machines("web") {
						if !connected[m.GetMetadata().GetName()] {
							away++
						}
					}
					if away > 1 {
						t.Fatalf("%d machines are away at once:\n%s", away, w.Describe())
					}
					return w.events("RebootDone") == 3 && w.Ready("web", 3)(s)
				})
				time.Sleep(20 * time.Minute)
				for _, m := range w.Machines("web") {
					if n := w.Boots(m.GetMetadata().GetName()); n != 1 {
						t.Errorf("%s has booted %d times", m.GetSpec().GetSlot(), n)
					}
				}
				if crash != "" && !crashes[crash] {
					t.Errorf("the leader never came to %s", crash)
				}
			})
		})
	}
}

// TestRebootThatDoesNotHappen: the machine is degraded, and neither asked without end nor followed by others.
func TestRebootThatDoesNotHappen(t *testing.T) {
	inWorld(t, func(ctx context.Context, w *world) {
		w.Keep(ctx, nil)
		w.Pool("web", 2, func(s *provisionrv1.PoolSpec) { s.OsPolicy = &provisionrv1.OsPolicy{Reboot: "coordinated"} })
		w.Until("two machines are ready", w.Ready("web", 2))
		ignored := func(slot string) bool { return slot == "web-1" }
		w.SetReboots(reconciletest.Reboots{
			Required: func(slot string, _ int) string {
				if slot == "web-1" {
					return "a new kernel"
				}
				return ""
			},
			Ignored: ignored,
		})
		w.Until("it is asked", func(*state.Snapshot) bool { return w.events("RebootBegun") == 1 })
		w.SetReboots(reconciletest.Reboots{Required: func(string, int) string { return "a new kernel" }, Ignored: ignored})
		w.Until("it is given up", func(s *state.Snapshot) bool {
			return s.MachineNamed("web-1").GetStatus().GetPhase() == provisionrv1.Phase_PHASE_DEGRADED
		})
		time.Sleep(40 * time.Minute)
		if phase := w.Read().MachineNamed("web-1").GetStatus().GetPhase(); phase != provisionrv1.Phase_PHASE_DEGRADED {
			t.Errorf("forty minutes later it is %s", phase)
		}
		if n := w.events("RebootBegun"); n != 1 {
			t.Errorf("%d reboots were begun", n)
		}
		if w.events("RebootOverdue") != 1 {
			t.Error("no event says that it is overdue")
		}
		// Somebody reboots it by hand, and it still says that it must: once a day is enough.
		w.SetReboots(reconciletest.Reboots{Required: func(string, int) string { return "a new kernel" }, Takes: 5 * time.Second})
		w.Bounce(w.Read().MachineNamed("web-1").GetMetadata().GetName())
		w.Until("it is ready again", w.Ready("web", 2))
		time.Sleep(time.Hour)
		if n := w.events("RebootBegun"); n != 2 {
			t.Errorf("%d reboots were begun: web-1 is not asked for another so soon, and web-2 once", n)
		}
	})
}
