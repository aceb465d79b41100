package reconcile_test

import (
	"context"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
)

// world is a reconciletest.World over one cloud.
type world struct {
	*reconciletest.World
	cloud *providertest.Cloud
	// remade says that instances were removed behind our back.
	remade bool
}

// inWorld runs f in a bubble of its own time with the agents at work.
func inWorld(t *testing.T, f func(ctx context.Context, w *world)) {
	t.Helper()
	w := &world{cloud: &providertest.Cloud{
		Latency: 20 * time.Millisecond, Capabilities: provider.Capabilities{SettleWindow: 3 * time.Second},
	}}
	reconciletest.Run(t, reconciletest.Config{
		Providers: map[string]provider.Provider{"local": w.cloud.Provider(reconciletest.ClusterID)},
		Objects: []*provisionrv1.Object{
			reconciletest.ProviderObject("local"), reconciletest.NetworkObject("local", "local", "10.88.0.0/24", true),
		},
		Instances: w.instances,
		Check:     func(*reconciletest.World) { w.holders(t) },
	}, func(ctx context.Context, inner *reconciletest.World) {
		w.World = inner
		f(ctx, w)
	})
}

func (w *world) instances() []reconciletest.Instance {
	var out []reconciletest.Instance
	for _, i := range w.cloud.Instances() {
		out = append(out, reconciletest.Instance{
			MachineID: i.MachineID, ProviderID: i.ProviderID, Slot: i.Request.GetSlot(), Running: i.State == provider.Running,
		})
	}
	return out
}

// holders checks that no two machines have one slot, but for heirs and those that handed it over: the provider is asked, not
// the records.
func (w *world) holders(t *testing.T) {
	t.Helper()
	seen := map[string]string{}
	s := w.Read()
	for _, i := range w.cloud.Instances() {
		slot := i.Request.GetSlot()
		role, phase := s.Slot(slot), s.Machine(i.MachineID).GetStatus().GetPhase()
		if n := w.cloud.Launched(i.MachineID); n > 1 && !w.remade {
			t.Errorf("machine %s was made %d times", i.MachineID, n)
		}
		leaving := phase == provisionrv1.Phase_PHASE_DRAINING || phase == provisionrv1.Phase_PHASE_TERMINATING
		if role.GetHeir() == i.MachineID || leaving && role.GetHolder() != i.MachineID {
			continue
		}
		if other, twice := seen[slot]; twice && other != i.MachineID {
			t.Errorf("slot %s is doubled: machines %s and %s", slot, other, i.MachineID)
		}
		seen[slot] = i.MachineID
	}
}

// change changes the instance of a slot's holder and returns the machine's id.
func (w *world) change(slot string, change func(*providertest.Instance) (remove bool)) string {
	id := w.Read().MachineNamed(slot).GetMetadata().GetName()
	w.cloud.Change(id, change)
	return id
}

// events counts the events of a reason.
func (w *world) events(reason string) (n int) {
	for e := range w.Read().Events(0) {
		if e.GetReason() == reason {
			n++
		}
	}
	return n
}
