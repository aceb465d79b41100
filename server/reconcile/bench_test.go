package reconcile_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/reconcile"
	"github.com/provisionr/provisionr/server/state"
)

// BenchmarkPlan plans ten pools of 1,000 machines: all of them ready, all on their way, all failed, and all in a pool that
// has just been changed.
func BenchmarkPlan(b *testing.B) {
	for name, change := range map[string]func(*provisionrv1.Machine){
		"ready":      func(*provisionrv1.Machine) {},
		"converging": func(m *provisionrv1.Machine) { m.Status.Phase = provisionrv1.Phase_PHASE_CONVERGING },
		"launching":  func(m *provisionrv1.Machine) { m.Status.Phase = provisionrv1.Phase_PHASE_LAUNCHING },
		"failed": func(m *provisionrv1.Machine) {
			m.Status.Phase, m.Status.Evidence = provisionrv1.Phase_PHASE_FAILED, &provisionrv1.BootEvidence{}
		},
		"changed": func(m *provisionrv1.Machine) { m.Spec.PoolGeneration = 0 },
	} {
		b.Run(name, func(b *testing.B) {
			view := crowd(b, change)
			now := epoch.Add(time.Hour)
			for b.Loop() {
				reconcile.Plan(view, now)
			}
		})
	}
}

// crowd is a view of 10,000 machines with the proofs of each about itself and by its peers.
func crowd(t testing.TB, change func(*provisionrv1.Machine)) reconcile.View {
	t.Helper()
	const pools, size = 10, 1000
	store := state.New()
	tx := store.Begin()
	tx.PutCluster(&provisionrv1.Cluster{Id: "c", FeatureLevel: 2})
	tx.Put(&provisionrv1.Network{Metadata: &provisionrv1.Metadata{Name: "local", Generation: 1}, Spec: &provisionrv1.NetworkSpec{Cidr: "10.0.0.0/8", Provider: "local"}})
	view := reconcile.View{
		Presence: map[string]reconcile.Presence{}, Ensured: map[string]uint64{"local": 1}, DownSince: map[string]time.Time{},
		Unexplained: map[string]time.Time{}, DesiredHash: func(string) string { return "h" },
	}
	listing := reconcile.Listing{Known: true, Started: epoch, Instances: map[string]provider.Instance{}}
	for p := range pools {
		pool := fmt.Sprintf("p%d", p)
		tx.Put(&provisionrv1.Pool{Metadata: &provisionrv1.Metadata{Name: pool, Generation: 1}, Spec: &provisionrv1.PoolSpec{
			Size: size, Os: debian, Hardware: &provisionrv1.Hardware{Types: []string{"small"}}, Placement: &provisionrv1.Placement{Zones: []string{"a"}},
		}})
		for i := range uint32(size) {
			slot := fmt.Sprintf("%s-%d", pool, i+1)
			id := "m-" + slot
			m := &provisionrv1.Machine{
				Metadata: &provisionrv1.Metadata{Name: id},
				Spec: &provisionrv1.MachineSpec{Pool: pool, Slot: slot, Index: i + 1, Provider: "local", Network: "local", PoolGeneration: 1,
					Os: debian, Hardware: &provisionrv1.Hardware{Types: []string{"small"}}, Placement: &provisionrv1.Placement{Zones: []string{"a"}}},
				Status: &provisionrv1.MachineStatus{Phase: provisionrv1.Phase_PHASE_READY, Since: timestamppb.New(epoch), SessionSeen: true,
					Deadline: timestamppb.New(epoch.Add(2 * time.Hour)), ProviderId: "i-" + slot, Attempt: 1,
					Agent: &provisionrv1.AgentStatus{Converged: true, DesiredHash: "h"}},
			}
			change(m)
			tx.Put(m)
			tx.Put(&provisionrv1.Slot{Metadata: &provisionrv1.Metadata{Name: slot}, Pool: pool, Index: i + 1, Holder: id})
			for a := range 11 {
				tx.Put(&provisionrv1.Proof{Machine: id, Observer: id, Assumption: fmt.Sprintf("a%d", a), State: provisionrv1.ProofState_PROOF_STATE_PROVEN})
			}
			for peer := range uint32(4) {
				observer := fmt.Sprintf("m-%s-%d", pool, (i+size-peer-1)%size+1)
				tx.Put(&provisionrv1.Proof{Machine: id, Observer: observer, Assumption: "peer.dns", State: provisionrv1.ProofState_PROOF_STATE_PROVEN})
			}
			view.Presence[id] = reconcile.Presence{Connected: true}
			listing.Instances[id] = provider.Instance{MachineID: id, ProviderID: "i-" + slot, State: provider.Running}
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	store.Publish()
	view.Snapshot, view.Listings = store.Read(), map[string]reconcile.Listing{"local": listing}
	return view
}
