package reconcile_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/reconcile"
	"github.com/provisionr/provisionr/server/state"
)

// world is a cluster with the real state machine, a cloud in memory and agents that behave. Servers come and go.
type world struct {
	t     *testing.T
	store *state.Store
	cloud *providertest.Cloud

	mu    sync.Mutex
	fsm   *fsm.FSM
	index uint64
	// sessions are the connected agents; changed is closed at each change.
	sessions map[string]bool
	changed  chan struct{}
	// booted says which instances have come up; broken agents never prove anything.
	booted map[string]bool
	broken func(slot string) bool
	// remade says that instances were removed behind our back.
	remade bool
}

func newWorld(t *testing.T) *world {
	store := state.New()
	w := &world{
		t: t, store: store, cloud: &providertest.Cloud{Latency: 20 * time.Millisecond}, sessions: map[string]bool{},
		changed: make(chan struct{}), booted: map[string]bool{}, broken: func(string) bool { return false },
	}
	w.cloud.Capabilities.SettleWindow = 3 * time.Second
	w.fsm = fsm.New(store, fsm.Level, slog.New(slog.DiscardHandler))
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_InitCluster{InitCluster: &raftlogv1.InitCluster{
		Cluster: &provisionrv1.Cluster{Id: "c-test", Name: "test"},
		Objects: []*provisionrv1.Object{
			{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
				Metadata: &provisionrv1.Metadata{Name: "default"}, Spec: &provisionrv1.ZoneSpec{Domain: "provisionr.internal"},
			}}},
			{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
				Metadata: &provisionrv1.Metadata{Name: "local"},
				Spec:     &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{Local: &provisionrv1.LocalProvider{Owner: "s1"}}},
			}}},
			{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
				Metadata: &provisionrv1.Metadata{Name: "local"},
				Spec:     &provisionrv1.NetworkSpec{Cidr: "10.88.0.0/24", Provider: "local", Managed: true},
			}}},
		},
	}}})
	return w
}

// apply commits a command, as Raft would.
func (w *world) apply(command *raftlogv1.Command) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	entry, err := proto.Marshal(&raftlogv1.Entry{Requests: []*raftlogv1.Request{{
		Id: fmt.Sprintf("r-%d", w.index), Time: timestamppb.New(time.Now()), FeatureLevel: 1, Command: command,
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

func (w *world) must(command *raftlogv1.Command) {
	w.t.Helper()
	if err := w.apply(command); err != nil {
		w.t.Fatalf("cannot apply %v: %v", command, err)
	}
}

// pool applies a pool of that size; change may alter it.
func (w *world) pool(name string, size uint32, change func(*provisionrv1.PoolSpec)) {
	w.t.Helper()
	spec := &provisionrv1.PoolSpec{
		Size: size, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"},
		Safety: &provisionrv1.Safety{SilentAfter: durationpb.New(20 * time.Second)},
	}
	if change != nil {
		change(spec)
	}
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{
		Objects: []*provisionrv1.Object{{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{
			ApiVersion: "provisionr/v1", Kind: "Pool", Metadata: &provisionrv1.Metadata{Name: name}, Spec: spec,
		}}}}, Uids: []string{"u-" + name},
	}}})
}

func (w *world) remove(kind, name string) {
	w.t.Helper()
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_DeleteObject{DeleteObject: &raftlogv1.DeleteObject{Kind: kind, Name: name}}})
}

// Connected and Changed make the world the Sessions of every server.
func (w *world) Connected() (map[string]bool, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]bool{}
	for id := range w.sessions {
		out[id] = true
	}
	return out, true
}

func (w *world) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// agents plays every machine: it boots, calls, joins, converges, proves itself and its peers, and falls silent when its
// instance stops.
func (w *world) agents(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		running := map[string]bool{}
		for _, i := range w.cloud.Instances() {
			if i.State != provider.Running {
				continue
			}
			running[i.MachineID] = true
			w.agent(i)
		}
		w.mu.Lock()
		before := len(w.sessions)
		for id := range w.sessions {
			if !running[id] {
				delete(w.sessions, id)
			}
		}
		w.signal(before)
		w.mu.Unlock()
	}
}

func (w *world) signal(before int) {
	if before != len(w.sessions) {
		close(w.changed)
		w.changed = make(chan struct{})
	}
}

// agent does the next thing of one machine.
func (w *world) agent(i providertest.Instance) {
	id := i.MachineID
	m := w.store.Read().Machine(id)
	if m == nil || m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_TERMINATING || m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_GONE {
		return
	}
	status := m.GetStatus()
	switch {
	case status.GetBootStage() == "":
		_ = w.apply(&raftlogv1.Command{Kind: &raftlogv1.Command_BootStage{BootStage: &raftlogv1.BootStage{Id: id, Stage: "started"}}})
	case w.isBroken(m.GetSpec().GetSlot()):
	case status.GetKeyFingerprint() == "":
		_ = w.apply(&raftlogv1.Command{Kind: &raftlogv1.Command_BindKey{BindKey: &raftlogv1.BindKey{Id: id, Attempt: i.Request.GetAttempt(), KeyFingerprint: "key-" + id}}})
	case !status.GetSessionSeen():
		w.connect(id)
		_ = w.apply(&raftlogv1.Command{Kind: &raftlogv1.Command_SessionSeen{SessionSeen: &raftlogv1.SessionSeen{Id: id, KeyFingerprint: "key-" + id}}})
	default:
		w.connect(id)
		report := &raftlogv1.ReportMachine{Id: id}
		if hash := desiredHash(w.store.Read(), id); status.GetAgent().GetDesiredHash() != hash {
			report.Agent = &provisionrv1.AgentStatus{Version: "1", DesiredHash: hash, Converged: true, PoolGeneration: w.generation(m)}
		}
		for _, subject := range w.cloud.Instances() {
			if peer := w.store.Read().Machine(subject.MachineID); peer.GetSpec().GetPool() == m.GetSpec().GetPool() &&
				w.store.Read().Proof(subject.MachineID, "dns", id) == nil && peer.GetStatus().GetSessionSeen() {
				report.Proofs = append(report.Proofs, &provisionrv1.Proof{
					Machine: subject.MachineID, Assumption: "dns", State: provisionrv1.ProofState_PROOF_STATE_PROVEN, DesiredHash: desiredHash(w.store.Read(), id),
				})
			}
		}
		if report.Agent != nil || len(report.Proofs) > 0 {
			_ = w.apply(&raftlogv1.Command{Kind: &raftlogv1.Command_ReportMachine{ReportMachine: report}})
		}
	}
}

// fail sets which machines' agents do nothing but boot.
func (w *world) fail(broken func(slot string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = broken
}

func (w *world) isBroken(slot string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken(slot)
}

func (w *world) connect(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := len(w.sessions)
	w.sessions[id] = true
	w.signal(before)
}

func (w *world) generation(m *provisionrv1.Machine) uint64 {
	return w.store.Read().Pool(m.GetSpec().GetPool()).GetMetadata().GetGeneration()
}

func desiredHash(s *state.Snapshot, id string) string {
	return fmt.Sprintf("h%d", s.Pool(s.Machine(id).GetSpec().GetPool()).GetMetadata().GetGeneration())
}

// server is one process: once dead, nothing that it does has an effect any more.
type server struct {
	*world
	dead context.Context
	die  context.CancelFunc
	done chan error
}

// mortal refuses the calls of a dead process.
type mortal struct {
	provider.Provider
	s *server
}

func (m mortal) Launch(ctx context.Context, r provider.LaunchRequest) (provider.Instance, error) {
	if err := m.s.alive(); err != nil {
		return provider.Instance{}, err
	}
	return m.Provider.Launch(ctx, r)
}

func (m mortal) Terminate(ctx context.Context, machineID, providerID string) error {
	if err := m.s.alive(); err != nil {
		return err
	}
	return m.Provider.Terminate(ctx, machineID, providerID)
}

var errDead = errors.New("the process is dead")

// serve starts a server. Its hook may call die.
func (w *world) serve(ctx context.Context, hook func(s *server, point string)) *server {
	w.t.Helper()
	s := &server{world: w, done: make(chan error, 1)}
	s.dead, s.die = context.WithCancel(ctx)
	var registry provider.Registry
	registry.Set("local", mortal{w.cloud.Provider("test"), s})
	logger := slog.New(slog.DiscardHandler)
	loop, err := reconcile.New(reconcile.Config{
		Member: "s1", Leadership: s, Store: w.store, Providers: &registry, Sessions: w, Tokens: s, Logger: logger, DesiredHash: desiredHash,
		Seed: func(*state.Snapshot, *provisionrv1.Network) (*provisionrv1.Seed, error) {
			return &provisionrv1.Seed{
				CaPins: []string{base64.StdEncoding.EncodeToString(make([]byte, 32))}, ApiEndpoints: []string{"10.88.0.1:7443"},
				AgentEndpoints: []string{"10.88.0.1:7444"}, AgentSha256: map[string]string{"amd64": strings.Repeat("0", 64)},
			}, nil
		},
		Hook: func(point string) {
			if hook != nil {
				hook(s, point)
			}
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	go func() { s.done <- loop.Run(s.dead) }()
	return s
}

func (s *server) LeaderLoop(ctx context.Context, f func(context.Context) error) error { return f(ctx) }

func (s *server) VerifyLeader(context.Context) error { return s.alive() }

func (s *server) alive() error {
	if s.dead.Err() != nil {
		return errDead
	}
	return nil
}

func (s *server) Do(_ context.Context, caller *provisionrv1.Caller, _ string, c *raftlogv1.Command) (*provisionrv1.Version, error) {
	if err := s.alive(); err != nil {
		return nil, errs.New(errs.Unavailable, "cannot commit: %w", err)
	}
	if caller.GetName() != "s1" || caller.GetKind() != "server" {
		s.t.Errorf("the loop calls as %v", caller)
	}
	return s.store.Read().Version(), s.apply(c)
}

func (s *server) MachineToken(id string, attempt uint32) (string, error) {
	return token(id, attempt, "join"), nil
}
func (s *server) BeaconToken(id string, attempt uint32) (string, error) {
	return token(id, attempt, "beacon"), nil
}

func token(parts ...any) string {
	sum := sha256.Sum256(fmt.Append(nil, parts...))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// holders checks, at every launch, that no two machines have one slot: the provider is asked, not the records.
func (w *world) holders() {
	seen := map[string]string{}
	for _, i := range w.cloud.Instances() {
		slot := i.Request.GetSlot()
		if other, twice := seen[slot]; twice {
			w.t.Errorf("slot %s is doubled: machines %s and %s", slot, other, i.MachineID)
		}
		seen[slot] = i.MachineID
		if n := w.cloud.Launched(i.MachineID); n > 1 && !w.remade {
			w.t.Errorf("machine %s was made %d times", i.MachineID, n)
		}
	}
}

// until lets time pass until the condition holds, and fails after an hour of the world's time.
func (w *world) until(what string, condition func(*state.Snapshot) bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !condition(w.store.Read()) {
		if time.Since(start) > time.Hour {
			w.t.Fatalf("an hour passed and %s is not so:\n%s", what, w.describe())
		}
		time.Sleep(250 * time.Millisecond)
		w.holders()
	}
	return time.Since(start)
}

func (w *world) describe() string {
	var b strings.Builder
	for m := range w.store.Read().Machines() {
		fmt.Fprintf(&b, "%s %s %s %s\n", m.GetMetadata().GetName(), m.GetSpec().GetSlot(), m.GetStatus().GetPhase(), m.GetStatus().GetReason())
	}
	for _, i := range w.cloud.Instances() {
		fmt.Fprintf(&b, "instance %s of %s: %s\n", i.ProviderID, i.MachineID, i.State)
	}
	return b.String()
}

func (w *world) ready(pool string, n int) func(*state.Snapshot) bool {
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
		return ready == n && len(w.cloud.Instances()) == n
	}
}

func (w *world) empty(pool string) func(*state.Snapshot) bool {
	return func(s *state.Snapshot) bool { return s.Pool(pool) == nil && len(w.cloud.Instances()) == 0 }
}
