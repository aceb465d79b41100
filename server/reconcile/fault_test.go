package reconcile_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
	"github.com/provisionr/provisionr/server/state"
)

// TestFaultyCloud runs a pool of spot machines through its life on a cloud that fails a fifth of all calls, half of those
// after they acted, lists late and takes machines back, while leaders change. In the end what is recorded is what there is.
func TestFaultyCloud(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cloud := &providertest.Cloud{
				Seed: seed, Latency: 100 * time.Millisecond, Lag: 2 * time.Second, FaultRate: 0.2, ReclaimPerHour: 2,
				Capabilities: provider.Capabilities{SettleWindow: 5 * time.Second, ListPage: 3},
			}
			w := &world{cloud: cloud, remade: true}
			reconciletest.Run(t, reconciletest.Config{
				Providers: map[string]provider.Provider{"local": cloud.Provider(reconciletest.ClusterID)},
				Instances: w.instances, Patience: 6 * time.Hour,
			}, func(ctx context.Context, inner *reconciletest.World) {
				w.World = inner
				s := w.Start(ctx, nil)
				w.Pool("web", 4, func(p *provisionrv1.PoolSpec) { p.Spot = &provisionrv1.Spot{Fallback: true} })
				for i := range 12 {
					time.Sleep(time.Duration(7+(seed+uint64(i))%11) * 10 * time.Second)
					if i%4 == 3 {
						s.Kill()
					} else if i%4 == 1 {
						s.Depose()
					}
					if !s.Alive() {
						s = w.Start(ctx, nil)
					}
				}
				w.Until("four machines are ready", func(s *state.Snapshot) bool {
					ready := 0
					for slot := range s.SlotsOf("web") {
						if s.Machine(slot.GetHolder()).GetStatus().GetPhase() == provisionrv1.Phase_PHASE_READY {
							ready++
						}
					}
					return ready == 4
				})
				w.Remove("pools", "web")
				w.Until("all is gone", func(s *state.Snapshot) bool {
					_, grouped := cloud.Rules(reconciletest.ClusterID, "web")
					return w.Empty("web")(s) && !grouped
				})
				time.Sleep(30 * time.Minute)
				if n := len(cloud.Instances()); n > 0 {
					t.Errorf("%d instances leaked:\n%s", n, w.Describe())
				}
			})
		})
	}
}
