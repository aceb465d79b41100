package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/ca"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/seal"
	"github.com/provisionr/provisionr/server/state"
)

// oneLog is a log of one member that always leads.
type oneLog struct {
	t     *testing.T
	store *state.Store
	fsm   *fsm.FSM

	mu    sync.Mutex
	index uint64
}

func (l *oneLog) LeaderLoop(ctx context.Context, f func(context.Context) error) error { return f(ctx) }

func (l *oneLog) Do(_ context.Context, caller *provisionrv1.Caller, id string, cmd *raftlogv1.Command) (*provisionrv1.Version, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entry, err := proto.Marshal(&raftlogv1.Entry{Requests: []*raftlogv1.Request{{
		Id: id, Time: timestamppb.Now(), Caller: caller, FeatureLevel: fsm.Needs(cmd), Command: cmd,
	}}})
	if err != nil {
		return nil, err
	}
	l.index++
	results := l.fsm.Apply(l.index, entry)
	if err := l.fsm.Stopped(); err != nil {
		return nil, err
	}
	if results[0].Err != nil {
		return nil, results[0].Err
	}
	return results[0].Version, nil
}

func (l *oneLog) must(commands ...*raftlogv1.Command) {
	l.t.Helper()
	for _, cmd := range commands {
		if _, err := l.Do(l.t.Context(), nil, rand.Text(), cmd); err != nil {
			l.t.Fatal(err)
		}
	}
}

// until waits for the state.
func (l *oneLog) until(what string, holds func(*state.Snapshot) bool) {
	l.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		changed := l.store.Watch()
		if holds(l.store.Read()) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			l.t.Fatalf("not in time: %s", what)
		}
	}
}

// newLog begins a cluster at a feature level, and returns the authority of its one member a.
func newLog(t *testing.T, level uint32) (*oneLog, *ca.CA) {
	t.Helper()
	store := state.New()
	l := &oneLog{t: t, store: store, fsm: fsm.New(store, featureLevel, slog.New(slog.DiscardHandler))}
	sealing, err := seal.NewMemberKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ca.Bootstrap(ca.BootstrapConfig{
		Cluster: &provisionrv1.Cluster{Name: "test", FeatureLevel: level}, Member: memberAt("a", level, sealing.Public()),
		ServerKey: key.Public(), Hosts: []string{"127.0.0.1"}, Now: time.Now(),
		Objects: []*provisionrv1.Object{
			{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
				Metadata: &provisionrv1.Metadata{Name: "default"}, Spec: &provisionrv1.ZoneSpec{Domain: "p.internal"},
			}}},
			{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
				Metadata: &provisionrv1.Metadata{Name: "local"},
				Spec:     &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{Local: &provisionrv1.LocalProvider{Owner: "a"}}},
			}}},
			{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
				Metadata: &provisionrv1.Metadata{Name: "local"}, Spec: &provisionrv1.NetworkSpec{Cidr: "10.88.0.0/24", Provider: "local", Managed: true},
			}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l.must(m.Commands...)
	authority, err := ca.New(ca.Config{State: func() ca.Records { return store.Read() }, Member: "a", Key: sealing})
	if err != nil {
		t.Fatal(err)
	}
	return l, authority
}

func memberAt(name string, level uint32, sealingKey []byte) *provisionrv1.Member {
	return &provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: name}, FeatureLevel: level, SealingKey: sealingKey, RaftAddress: "127.0.0.1:1"}
}

func putMember(m *provisionrv1.Member) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: m}}}
}

// TestRollingUpgrade: with the last member upgraded the cluster has the new level, and what the level brings, by itself.
func TestRollingUpgrade(t *testing.T) {
	l, authority := newLog(t, 2)
	b, c := memberAt("b", 2, nil), memberAt("c", 2, nil)
	l.must(putMember(b), putMember(c))
	ctx, cancel := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	levels := &leveller{store: l.store, raft: l, caller: &provisionrv1.Caller{Name: "a", Kind: "server"}, log: slog.New(slog.DiscardHandler)}
	loops.Go(func() { _ = levels.run(ctx) })
	loops.Go(func() {
		changed := func() <-chan struct{} { return l.store.Watch(state.TableAuthorities, state.TableCluster) }
		_ = authority.KeepSSH(ctx, changed, func(ctx context.Context, cmd *raftlogv1.Command) error {
			_, err := l.Do(ctx, nil, rand.Text(), cmd)
			return err
		})
	})
	defer loops.Wait()
	defer cancel()
	a := proto.CloneOf(l.store.Read().Member("a"))
	for _, m := range []*provisionrv1.Member{a, b} {
		m.FeatureLevel = 3
		l.must(putMember(m))
		if level := l.store.Read().Cluster().GetFeatureLevel(); level != 2 || len(authority.SSHAuthorities()) != 0 {
			t.Fatalf("with a member at level 2 left, the cluster is at %d", level)
		}
		if _, err := l.Do(ctx, nil, rand.Text(), &raftlogv1.Command{Kind: &raftlogv1.Command_PutSecret{PutSecret: &raftlogv1.PutSecret{}}}); !errs.Is(err, errs.Unsupported) {
			t.Errorf("a command of level 3: %v", err)
		}
	}
	c.FeatureLevel = 3
	l.must(putMember(c))
	l.until("the cluster is at level 3", func(s *state.Snapshot) bool { return s.Cluster().GetFeatureLevel() == 3 })
	l.until("there is an authority for ssh", func(*state.Snapshot) bool { return len(authority.SSHAuthorities()) == 1 })
}

func TestFuture(t *testing.T) {
	l, _ := newLog(t, featureLevel)
	s := &Server{store: l.store}
	pool := func(spec *provisionrv1.PoolSpec) *raftlogv1.ApplyObjects {
		spec.Os = &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}
		return &raftlogv1.ApplyObjects{Objects: []*provisionrv1.Object{{Kind: &provisionrv1.Object_Pool{Pool: &provisionrv1.Pool{
			Metadata: &provisionrv1.Metadata{Name: "web"}, Spec: spec,
		}}}}}
	}
	present := l.store.Read()
	after, err := s.future(&provisionrv1.Caller{Name: "ann"}, pool(&provisionrv1.PoolSpec{Size: 2}))
	if err != nil {
		t.Fatal(err)
	}
	if after.Pool("web").GetSpec().GetSize() != 2 || after.Slot("web-2") == nil || after.Version().GetIndex() != present.Version().GetIndex()+1 {
		t.Errorf("after: %v at %v", after.Pool("web"), after.Version())
	}
	if now := l.store.Read(); now.Pool("web") != nil || now.Version().GetIndex() != present.Version().GetIndex() {
		t.Error("the present has changed")
	}
	if _, err := s.future(nil, pool(&provisionrv1.PoolSpec{Size: 2, Network: "none"})); !errs.Is(err, errs.Invalid) {
		t.Errorf("what cannot be applied: %v", err)
	}
	// The copies have not touched each other either.
	l.must(&raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: pool(&provisionrv1.PoolSpec{Size: 1})}})
	if after.Pool("web").GetSpec().GetSize() != 2 || l.store.Read().Pool("web").GetMetadata().GetGeneration() != 1 {
		t.Error("the present has changed the copy")
	}
	old, _ := newLog(t, 2)
	if _, err := (&Server{store: old.store}).future(nil, pool(&provisionrv1.PoolSpec{Size: 1, Timezone: "UTC"})); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a field of level 3 at level 2: %v", err)
	}
}
