package reconcile_test

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
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
	kinds := []string{"scale", "kill", "remove instance", "delete machine", "crash", "lose responses", "no provider", "hardware"}
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
		size, cpus := uint32(3), uint32(0)
		apply := func() {
			w.pool("web", size, func(s *provisionrv1.PoolSpec) { s.Hardware = &provisionrv1.Hardware{Cpus: cpus} })
		}
		apply()
		s := w.serve(ctx, nil)
		for _, d := range happens {
			time.Sleep(d.after)
			w.holders()
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
				if m := w.store.Read().Machine(victim); m != nil {
					w.remove("machines", victim)
				}
			case "crash":
				s.die()
				<-s.done
				s = w.serve(ctx, nil)
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
		w.until("the pool is as asked for last", func(s *state.Snapshot) bool {
			for _, i := range w.cloud.Instances() {
				if i.Request.GetHardware().GetCpus() != cpus {
					return false
				}
			}
			return w.ready("web", int(size))(s)
		})
		w.remove("pools", "web")
		w.until("all is gone", w.empty("web"))
	})
}
