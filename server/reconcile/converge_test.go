package reconcile_test

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
	"github.com/provisionr/provisionr/server/state"
)

// disturbance is something that happens to a world.
type disturbance struct {
	kind  string
	index int
	after time.Duration
}

// TestConverges disturbs a world at random; once the disturbances end, it becomes what was asked for last.
func TestConverges(t *testing.T) {
	kinds := []string{"scale", "kill", "remove instance", "delete machine", "crash", "lose responses", "no provider", "hardware", "notice", "duplicate",
		"no capacity", "surge", "depose", "new kernel"}
	rapid.Check(t, func(rt *rapid.T) {
		var happens []disturbance
		for range rapid.IntRange(1, 8).Draw(rt, "disturbances") {
			happens = append(happens, disturbance{
				kind: rapid.SampledFrom(kinds).Draw(rt, "kind"), index: rapid.IntRange(0, 5).Draw(rt, "index"),
				after: time.Duration(rapid.IntRange(0, 30000).Draw(rt, "after")) * time.Millisecond,
			})
		}
		// A bubble that fails ends the test at once: there are no smaller cases, and the seed is in this log.
		defer func() {
			if t.Failed() {
				t.Logf("it did not converge after %v", happens)
			}
		}()
		disturbed(t, happens)
	})
}

func disturbed(t *testing.T, happens []disturbance) {
	inWorld(t, func(ctx context.Context, w *world) {
		size, cpus, surge := uint32(3), uint32(0), uint32(0)
		apply := func() {
			w.Pool("web", size, func(s *provisionrv1.PoolSpec) {
				s.Hardware, s.Safety.MaxSurge = &provisionrv1.Hardware{Cpus: cpus}, &surge
				s.OsPolicy = &provisionrv1.OsPolicy{Reboot: "coordinated"}
			})
		}
		apply()
		s := w.Start(ctx, nil)
		for _, d := range happens {
			time.Sleep(d.after)
			w.holders(t)
			instances := w.cloud.Instances()
			var victim string
			if len(instances) > 0 {
				victim = instances[d.index%len(instances)].MachineID
			}
			switch d.kind {
			case "scale":
				size = uint32(d.index)
				apply()
			case "hardware":
				cpus = uint32(d.index)
				apply()
			case "kill":
				w.cloud.Change(victim, func(i *providertest.Instance) bool { i.State = provider.Stopped; return false })
			case "remove instance":
				// A machine that vanishes before its launch is answered is made once more, under the same id.
				w.remade = true
				w.cloud.Change(victim, func(*providertest.Instance) bool { return true })
			case "delete machine":
				if m := w.Read().Machine(victim); m != nil {
					w.Remove("machines", victim)
				}
			case "crash":
				s.Kill()
				<-s.Done()
				s = w.Start(ctx, nil)
			case "depose":
				// What the old leader has in flight goes on beside the new one.
				s.Depose()
				s = w.Start(ctx, nil)
			case "notice":
				w.cloud.Change(victim, func(i *providertest.Instance) bool { i.Notice = &provisionrv1.Notice{Kind: "spot"}; return false })
			case "duplicate":
				w.remade = true
				w.cloud.Duplicate(reconciletest.ClusterID, victim)
			case "no capacity":
				w.cloud.SetCapacity("sim-a", "", d.index)
			case "new kernel":
				w.SetReboots(reconciletest.Reboots{Takes: time.Duration(d.index) * 10 * time.Second, Required: func(_ string, boots int) string {
					return []string{"a new kernel", ""}[min(boots, 1)]
				}})
			case "surge":
				surge = uint32(d.index % 3)
				apply()
			case "lose responses":
				w.cloud.SetFault(func(op, _ string) error {
					if op == "lost-launch" || op == "lost-terminate" {
						return provider.Errorf(provider.Unknown, "connection reset")
					}
					return nil
				})
			case "no provider":
				w.cloud.SetFault(func(string, string) error { return provider.Errorf(provider.Unknown, "no route to host") })
			}
		}
		w.cloud.SetFault(nil)
		w.cloud.SetCapacity("sim-a", "", -1)
		w.Until("the pool is as asked for last", func(s *state.Snapshot) bool {
			for _, i := range w.cloud.Instances() {
				if i.Request.GetHardware().GetCpus() != cpus {
					return false
				}
			}
			return w.Ready("web", int(size))(s)
		})
		w.Remove("pools", "web")
		w.Until("all is gone", w.Empty("web"))
	})
}
