package reconciletest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/reconcile"
	"github.com/provisionr/provisionr/server/state"
)

// ClusterID is the id of every world's cluster.
const ClusterID = "c-test"

// Instance is a machine as it really is, whatever its provider lists.
type Instance struct {
	MachineID, ProviderID string
	// Slot that it was launched for; empty where the backend does not know.
	Slot string
	// Running says that its agent is at work.
	Running bool
}

// Config of a World.
type Config struct {
	// Providers by the name of their Provider object. Required.
	Providers map[string]provider.Provider
	// Renew makes the providers of a server that starts, which remember nothing of the servers before. Default: all servers
	// share Providers.
	Renew func() map[string]provider.Provider
	// Objects that the cluster begins with. Default: for every provider an object and a network of its name, 10.N.0.0/16
	// with N from 88 on in the order of names, managed where the provider takes addresses. A zone named default, of the
	// domain provisionr.internal, is always there.
	Objects []*provisionrv1.Object
	// Instances returns what really exists. Agents run on those that run. Default: every machine whose record has a
	// provider's id, until it is terminated.
	Instances func() []Instance
	// NoAgents leaves the machines to the test, which reports for them with Do and Connect.
	NoAgents bool
	// Boot is how long a machine takes from its first appearance to its first sign of life. Default: none.
	Boot time.Duration
	// Tick is how often agents do their next step. Default: 500ms.
	Tick time.Duration
	// Loop changes the configuration of each server's loop; nil leaves it.
	Loop func(*reconcile.Config)
	// Check is called with every step of Until; nil checks nothing.
	Check func(*World)
	// Patience is how long Until waits in the world's time. Default: an hour.
	Patience time.Duration
}

// World is a cluster. Its methods may be called from any goroutine of its bubble.
type World struct {
	Config
	t     testing.TB
	store *state.Store

	mu    sync.Mutex
	fsm   *fsm.FSM
	index uint64
	// sessions are the connected agents; changed is closed at each change.
	sessions map[string]bool
	changed  chan struct{}
	// appeared is when each instance was first seen running.
	appeared map[string]time.Time
	broken   func(slot string) bool
	// boots counts those of each machine beside the first; back is when it is there again.
	reboots Reboots
	boots   map[string]int
	back    map[string]time.Time
}

// Run makes a bubble and a world in it, with its agents at work, and runs f there. The context ends with f.
func Run(t *testing.T, c Config, f func(ctx context.Context, w *World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		w := New(t, c)
		if !c.NoAgents {
			go w.RunAgents(ctx)
		}
		f(ctx, w)
	})
}

// New returns a world without servers, whose agents do not run yet.
func New(t testing.TB, c Config) *World {
	t.Helper()
	c.Tick = cmp.Or(c.Tick, 500*time.Millisecond)
	c.Patience = cmp.Or(c.Patience, time.Hour)
	w := &World{
		Config: c, t: t, store: state.New(), sessions: map[string]bool{}, changed: make(chan struct{}),
		appeared: map[string]time.Time{}, broken: func(string) bool { return false },
		boots: map[string]int{}, back: map[string]time.Time{},
	}
	if w.Instances == nil {
		w.Instances = w.recorded
	}
	w.fsm = fsm.New(w.store, fsm.Level, slog.New(slog.DiscardHandler))
	objects := []*provisionrv1.Object{{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
		Metadata: &provisionrv1.Metadata{Name: state.DefaultZone}, Spec: &provisionrv1.ZoneSpec{Domain: "provisionr.internal"},
	}}}}
	if len(c.Objects) == 0 {
		c.Objects = defaultObjects(c.Providers)
	}
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_InitCluster{InitCluster: &raftlogv1.InitCluster{
		Cluster: &provisionrv1.Cluster{Id: ClusterID, Name: "test", FeatureLevel: fsm.Level}, Objects: append(objects, c.Objects...),
	}}})
	return w
}

func defaultObjects(providers map[string]provider.Provider) []*provisionrv1.Object {
	var objects []*provisionrv1.Object
	for i, name := range slices.Sorted(maps.Keys(providers)) {
		objects = append(objects, ProviderObject(name),
			NetworkObject(name, name, fmt.Sprintf("10.%d.0.0/16", 88+i), providers[name].Capabilities().ManagedAddresses))
	}
	return objects
}

// ProviderObject returns a Provider object. Its kind has no meaning in a world: the provider is the one of that name.
func ProviderObject(name string) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
		Metadata: &provisionrv1.Metadata{Name: name},
		Spec:     &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Sim{Sim: &provisionrv1.SimProvider{Owner: "s1"}}},
	}}}
}

// NetworkObject returns a Network object of a provider.
func NetworkObject(name, providerName, cidr string, managed bool) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
		Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.NetworkSpec{Cidr: cidr, Provider: providerName, Managed: managed},
	}}}
}

// Read returns the committed state.
func (w *World) Read() *state.Snapshot { return w.store.Read() }

// Do commits a command, as Raft would.
func (w *World) Do(command *raftlogv1.Command) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	entry, err := proto.Marshal(&raftlogv1.Entry{Requests: []*raftlogv1.Request{{
		Id: fmt.Sprintf("r-%d", w.index), Time: timestamppb.New(time.Now()), FeatureLevel: fsm.Level, Command: command,
	}}})
	if err != nil {
		return err
	}
	results := w.fsm.Apply(w.index, entry)
	if len(results) != 1 {
		return fmt.Errorf("the state machine stopped: %w", w.fsm.Stopped())
	}
	if err := results[0].Err; err != nil {
		return err
	}
	return nil
}

func (w *World) must(command *raftlogv1.Command) {
	w.t.Helper()
	if err := w.Do(command); err != nil {
		w.t.Fatalf("cannot apply %v: %v", command, err)
	}
}

// Apply applies objects, which must succeed.
func (w *World) Apply(objects ...*provisionrv1.Object) {
	w.t.Helper()
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{Objects: objects}}})
}

// Pool applies a pool of that size, of the first provider by name; changes may alter it. Agents may be silent for 20
// seconds.
func (w *World) Pool(name string, size uint32, changes ...func(*provisionrv1.PoolSpec)) {
	w.t.Helper()
	spec := &provisionrv1.PoolSpec{
		Size: size, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"},
		Provider: slices.Min(slices.Collect(maps.Keys(w.Providers))),
		Safety:   &provisionrv1.Safety{SilentAfter: durationpb.New(20 * time.Second)},
	}
	for _, change := range changes {
		change(spec)
	}
	w.Apply(&provisionrv1.Object{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{
		ApiVersion: "provisionr/v1", Kind: "Pool", Metadata: &provisionrv1.Metadata{Name: name}, Spec: spec,
	}}})
}

// Remove deletes an object; kind is a lower case plural, as pools.
func (w *World) Remove(kind, name string) {
	w.t.Helper()
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_DeleteObject{DeleteObject: &raftlogv1.DeleteObject{Kind: kind, Name: name}}})
}

// Machines returns the records of a pool's machines that are not gone, by slot.
func (w *World) Machines(pool string) []*provisionrv1.Machine {
	var out []*provisionrv1.Machine
	for m := range w.Read().MachinesOf(pool) {
		if m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_GONE {
			out = append(out, m)
		}
	}
	return out
}

// Until lets time pass until the condition holds and returns how long it took. It fails the test when that takes longer than
// Config.Patience.
func (w *World) Until(what string, condition func(*state.Snapshot) bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !condition(w.Read()) {
		if time.Since(start) > w.Patience {
			w.t.Fatalf("%s passed and %s is not so:\n%s", w.Patience, what, w.Describe())
		}
		time.Sleep(250 * time.Millisecond)
		if w.Check != nil {
			w.Check(w)
		}
	}
	return time.Since(start)
}

// Ready says that the pool has so many ready machines and no others, neither in the state nor at the providers. It counts
// all instances there are, so it is for worlds with one pool; see PoolReady.
func (w *World) Ready(pool string, n int) func(*state.Snapshot) bool {
	return func(s *state.Snapshot) bool { return w.PoolReady(pool, n)(s) && len(w.Instances()) == n }
}

// PoolReady says that the pool has so many ready machines in the state, and no others but those that are gone.
func (w *World) PoolReady(pool string, n int) func(*state.Snapshot) bool {
	return func(s *state.Snapshot) bool {
		ready := 0
		for m := range s.MachinesOf(pool) {
			switch m.GetStatus().GetPhase() {
			case provisionrv1.Phase_PHASE_READY:
				ready++
			case provisionrv1.Phase_PHASE_GONE:
			default:
				return false
			}
		}
		return ready == n
	}
}

// Empty says that the pool is gone from the state, and every instance from the providers.
func (w *World) Empty(pool string) func(*state.Snapshot) bool {
	return func(s *state.Snapshot) bool { return s.Pool(pool) == nil && len(w.Instances()) == 0 }
}

// Describe lists machines and instances, for messages of failed tests.
func (w *World) Describe() string {
	var b strings.Builder
	for m := range w.Read().Machines() {
		role := ""
		switch slot := w.Read().Slot(m.GetSpec().GetSlot()); m.GetMetadata().GetName() {
		case slot.GetHolder():
			role = " (holder)"
		case slot.GetHeir():
			role = " (heir)"
		}
		fmt.Fprintf(&b, "%s %s%s %s %s\n", m.GetMetadata().GetName(), m.GetSpec().GetSlot(), role,
			state.PhaseName(m.GetStatus().GetPhase()), m.GetStatus().GetReason())
	}
	for _, i := range w.Instances() {
		fmt.Fprintf(&b, "instance %s of %s: running %v\n", i.ProviderID, i.MachineID, i.Running)
	}
	return b.String()
}
