package sim_test

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/sim"
	"github.com/provisionr/provisionr/server/reconcile/reconciletest"
	"github.com/provisionr/provisionr/server/state"
)

// These measure how well the real control loop uses what the API allows, in virtual time: the machine that it runs on makes
// no difference.
const (
	launchGoal = 1.15 // times the least time that the buckets allow
	pollGoal   = 1.0  // calls a second
)

// worldOf returns a world whose one provider is a cloud with EC2's buckets, and the cloud.
func worldOf(t *testing.T, c reconciletest.Config) (reconciletest.Config, *sim.Provider) {
	t.Helper()
	p, err := sim.New(sim.Config{ClusterID: reconciletest.ClusterID})
	if err != nil {
		t.Fatal(err)
	}
	c.Providers = map[string]provider.Provider{"sim": p}
	c.Tick = 2 * time.Second
	c.Boot = 20 * time.Second
	c.Instances = func() (all []reconciletest.Instance) {
		for _, i := range p.Cloud().Instances() {
			all = append(all, reconciletest.Instance{
				MachineID: i.MachineID, ProviderID: i.ProviderID, Slot: i.Request.GetSlot(), Running: i.State == provider.Running,
			})
		}
		return all
	}
	return c, p
}

// launches returns how long it takes until the cloud has so many machines, and the least time that the buckets allow.
func launches(t *testing.T, machines int) (took, least time.Duration) {
	t.Helper()
	c, p := worldOf(t, reconciletest.Config{})
	reconciletest.Run(t, c, func(ctx context.Context, w *reconciletest.World) {
		w.Start(ctx, nil)
		w.Pool("web", uint32(machines))
		took = w.Until("all machines are launched", func(*state.Snapshot) bool { return len(p.Cloud().Instances()) >= machines })
		least = sim.LaunchMinimum(machines, sim.EC2Limits()["launch"])
		w.Until("all machines are ready", w.Ready("web", machines))
		for op := range sim.EC2Limits() {
			t.Logf("%d calls of %s", p.Cloud().Calls(op), op)
		}
		if calls := p.Cloud().Calls("launch"); calls != uint64(machines) {
			t.Errorf("%d launches for %d machines", calls, machines)
		}
	})
	return took, least
}

// polls returns how many calls a second a pool of ready machines costs.
func polls(t *testing.T, machines int) (perSecond float64) {
	t.Helper()
	c, p := worldOf(t, reconciletest.Config{NoAgents: true})
	reconciletest.Run(t, c, func(ctx context.Context, w *reconciletest.World) {
		steady(t, w, p.Cloud(), "web", machines)
		w.Start(ctx, nil)
		time.Sleep(2 * time.Minute) // the first lists of a new leader
		const span = 10 * time.Minute
		before := p.Cloud().Calls("")
		time.Sleep(span)
		perSecond = float64(p.Cloud().Calls("")-before) / span.Seconds()
		if !w.Ready("web", machines)(w.Read()) {
			t.Fatalf("the pool did not stay ready")
		}
	})
	return perSecond
}

// The sizes are those of CI; `make bench-launch` gives those that the goals are stated for.
var (
	launched = flag.Int("launched", 100, "machines that TestLaunchRate launches")
	polled   = flag.Int("polled", 1100, "machines that TestPollRate polls")
)

func result(name string, value float64, unit string, goal float64) {
	verdict := "ok"
	if value > goal {
		verdict = "short"
	}
	fmt.Printf("RESULT %s %.3f %s goal %g %s\n", name, value, unit, goal, verdict)
}

func TestLaunchRate(t *testing.T) {
	took, least := launches(t, *launched)
	ratio := took.Seconds() / least.Seconds()
	fmt.Printf("launching %d machines took %s of virtual time; EC2's bucket of RunInstances allows it in %s\n", *launched, took, least)
	result(fmt.Sprintf("launch_%d_ratio", *launched), ratio, "x", launchGoal)
	if ratio > launchGoal {
		t.Errorf("launching took %.2f times the least", ratio)
	}
}

func TestPollRate(t *testing.T) {
	got := polls(t, *polled)
	result(fmt.Sprintf("poll_%d_requests_per_second", *polled), got, "1/s", pollGoal)
	if got > pollGoal {
		t.Errorf("%.2f calls a second", got)
	}
}

// steady makes a pool of ready machines in the state and in the cloud, as if it had been launched long ago.
func steady(t *testing.T, w *reconciletest.World, cloud *sim.Cloud, pool string, machines int) {
	t.Helper()
	do := func(c *raftlogv1.Command) {
		if err := w.Do(c); err != nil {
			t.Fatalf("cannot apply %v: %v", c, err)
		}
	}
	w.Pool(pool, uint32(machines))
	id := func(n int) string { return fmt.Sprintf("m-steady%010d", n%machines) }
	generation := w.Read().Pool(pool).GetMetadata().GetGeneration()
	phase := func(id string, from, to provisionrv1.Phase, providerID string) {
		do(&raftlogv1.Command{Kind: &raftlogv1.Command_SetPhase{SetPhase: &raftlogv1.SetPhase{
			Id: id, From: []provisionrv1.Phase{from}, To: to, Reason: "it has long been so", ProviderId: providerID,
		}}})
	}
	requests := make([]*provisionrv1.LaunchRequest, machines)
	for n := range machines {
		do(&raftlogv1.Command{Kind: &raftlogv1.Command_CreateMachine{CreateMachine: &raftlogv1.CreateMachine{
			Id: id(n), Pool: pool, Index: uint32(n + 1), PoolGeneration: generation,
		}}})
		m := w.Read().Machine(id(n))
		requests[n] = &provisionrv1.LaunchRequest{
			MachineId: id(n), ClusterId: reconciletest.ClusterID, Attempt: 1, Pool: pool, Slot: m.GetSpec().GetSlot(), Address: m.GetStatus().GetAddress(),
		}
		do(&raftlogv1.Command{Kind: &raftlogv1.Command_BeginLaunch{BeginLaunch: &raftlogv1.BeginLaunch{
			Launch: requests[n], Deadline: timestamppb.New(time.Now().Add(time.Hour)),
		}}})
	}
	cloud.Add(reconciletest.ClusterID, requests...)
	for n, i := range cloud.Instances() {
		if i.MachineID != id(n) {
			t.Fatalf("instance %d is of machine %s", n, i.MachineID)
		}
		phase(id(n), provisionrv1.Phase_PHASE_LAUNCHING, provisionrv1.Phase_PHASE_BOOTING, i.ProviderID)
		key := "key-" + id(n)
		do(&raftlogv1.Command{Kind: &raftlogv1.Command_BindKey{BindKey: &raftlogv1.BindKey{Id: id(n), Attempt: 1, KeyFingerprint: key}}})
		phase(id(n), provisionrv1.Phase_PHASE_BOOTING, provisionrv1.Phase_PHASE_JOINING, "")
		w.Connect(id(n), true)
		do(&raftlogv1.Command{Kind: &raftlogv1.Command_SessionSeen{SessionSeen: &raftlogv1.SessionSeen{Id: id(n), KeyFingerprint: key}}})
		phase(id(n), provisionrv1.Phase_PHASE_JOINING, provisionrv1.Phase_PHASE_CONVERGING, "")
	}
	for n := range machines {
		hash := reconciletest.DesiredHash(w.Read(), id(n))
		report := &raftlogv1.ReportMachine{Id: id(n), Agent: &provisionrv1.AgentStatus{
			Version: "1", DesiredHash: hash, Converged: true, PoolGeneration: generation,
		}}
		for _, about := range []string{id(n), id(n + 1)} {
			report.Proofs = append(report.Proofs, &provisionrv1.Proof{
				Machine: about, Assumption: "simulated", State: provisionrv1.ProofState_PROOF_STATE_PROVEN, DesiredHash: hash,
			})
		}
		do(&raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: report}})
		phase(id(n), provisionrv1.Phase_PHASE_CONVERGING, provisionrv1.Phase_PHASE_READY, "")
	}
}
