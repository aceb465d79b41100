package server

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// built is a provider that says when it runs.
type built struct {
	provider.Provider
	seed uint64
	log  *record
}

func (b built) Run(ctx context.Context) error {
	b.log.add("start")
	<-ctx.Done()
	b.log.add("stop")
	return nil
}

// record is what has happened, in order.
type record struct {
	mu    sync.Mutex
	lines []string
}

func (r *record) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

func (r *record) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

func simOf(name, owner string, seed uint64) *provisionrv1.Provider {
	return &provisionrv1.Provider{Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.ProviderSpec{
		Type: &provisionrv1.ProviderSpec_Sim{Sim: &provisionrv1.SimProvider{Owner: owner, Seed: seed}},
	}}
}

// Providers come, change and go with their objects; one that cannot be made says why, and is tried again.
func TestKeeperFollowsTheObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, registry, log := state.New(), &provider.Registry{}, &record{}
		said := &record{}
		missing := errors.New("qemu-img is not installed")
		var fault atomic.Pointer[error]
		k := &keeper{
			self: "a", store: store, registry: registry, log: slog.New(slog.DiscardHandler),
			build: func(p *provisionrv1.Provider) (provider.Provider, error) {
				if err := fault.Load(); err != nil {
					return nil, *err
				}
				return built{seed: p.GetSpec().GetSim().GetSeed(), log: log}, nil
			},
			say: func(_ context.Context, p *provisionrv1.Provider, err error) {
				said.add(p.GetMetadata().GetName() + ": " + err.Error())
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		k.sync(ctx, store.Read())
		ended := make(chan error, 1)
		go func() { ended <- k.run(ctx) }()
		step := func(what string, rows ...*provisionrv1.Provider) {
			t.Helper()
			change(store, func(tx *state.Tx) {
				for _, row := range rows {
					tx.Put(row)
				}
			})
			synctest.Wait()
			t.Log(what, registry.Names())
		}
		seedOf := func(name string) uint64 {
			t.Helper()
			p, err := registry.Provider(name)
			if err != nil {
				t.Fatal(err)
			}
			return p.(built).seed
		}
		step("its own, another's and one without a kind", simOf("mine", "a", 1), simOf("theirs", "b", 2), &provisionrv1.Provider{Metadata: &provisionrv1.Metadata{Name: "none"}})
		if names := registry.Names(); !slices.Equal(names, []string{"mine"}) || !slices.Equal(log.take(), []string{"start"}) {
			t.Errorf("providers: %v", names)
		}
		step("nothing that matters", simOf("mine", "a", 1))
		if lines := log.take(); len(lines) > 0 {
			t.Errorf("made again: %v", lines)
		}
		step("changed", simOf("mine", "a", 9))
		if lines := log.take(); seedOf("mine") != 9 || !slices.Equal(lines, []string{"stop", "start"}) {
			t.Errorf("%v", lines)
		}
		step("handed to another member", simOf("mine", "b", 9))
		if lines := log.take(); len(registry.Names()) > 0 || !slices.Equal(lines, []string{"stop"}) {
			t.Errorf("%v %v", registry.Names(), lines)
		}
		fault.Store(&missing)
		step("cannot be made", simOf("mine", "a", 3))
		p, err := registry.Provider("mine")
		if lines := said.take(); err != nil || !slices.Equal(lines, []string{"mine: qemu-img is not installed"}) {
			t.Fatalf("%v %v", err, lines)
		}
		for _, err := range p.List(ctx) {
			if provider.KindOf(err) != provider.Unknown || !errors.Is(err, missing) {
				t.Errorf("a list of nothing: %v", err)
			}
		}
		if _, err := p.Launch(ctx, provider.LaunchRequest{}); provider.KindOf(err) != provider.Unknown {
			t.Errorf("%v", err)
		}
		time.Sleep(rebuildAfter)
		synctest.Wait()
		if lines := said.take(); len(lines) > 0 {
			t.Errorf("said again: %v", lines)
		}
		fault.Store(nil)
		time.Sleep(rebuildAfter)
		synctest.Wait()
		if seedOf("mine") != 3 {
			t.Error("not tried again")
		}
		change(store, func(tx *state.Tx) { tx.Delete(simOf("mine", "a", 3)) })
		synctest.Wait()
		if len(registry.Names()) > 0 {
			t.Error("it runs without its object")
		}
		step("once more", simOf("mine", "a", 3))
		cancel()
		if err := <-ended; err != nil || len(registry.Names()) > 0 {
			t.Errorf("%v %v", err, registry.Names())
		}
	})
}

// What a member does not know it does not take for absent.
func TestBrokenKeepsItsCapabilities(t *testing.T) {
	b := builders()["local"]
	if c := b.capabilities(nil); !c.HostBound || !c.ManagedAddresses {
		t.Errorf("%+v", c)
	}
	s := &Server{config: Config{Name: "a"}}
	if _, err := s.buildLocal(nil); provider.KindOf(err) != provider.Invalid {
		t.Errorf("containers without --local: %v", err)
	}
}

// Every kind that a manifest can name has a builder.
func TestEveryKindIsBuilt(t *testing.T) {
	fields := (&provisionrv1.ProviderSpec{}).ProtoReflect().Descriptor().Oneofs().ByName("type").Fields()
	for i := range fields.Len() {
		if kind := fields.Get(i).JSONName(); builders()[kind].build == nil {
			t.Errorf("no builder for %s", kind)
		}
	}
}

// levels is a Raft that this member leads.
type levels struct {
	store  *state.Store
	refuse int
	asked  []uint32
}

func (l *levels) LeaderLoop(ctx context.Context, f func(context.Context) error) error { return f(ctx) }

func (l *levels) Do(_ context.Context, _ *provisionrv1.Caller, _ string, cmd *raftlogv1.Command) (*provisionrv1.Version, error) {
	level := cmd.GetSetFeatureLevel().GetLevel()
	l.asked = append(l.asked, level)
	if l.refuse > 0 {
		l.refuse--
		return nil, errors.New("no quorum")
	}
	change(l.store, func(tx *state.Tx) { tx.PutCluster(&provisionrv1.Cluster{FeatureLevel: level}) })
	return nil, nil
}

// The level rises with the last member that is upgraded, and not before.
func TestLeveller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := state.New()
		raft := &levels{store: store, refuse: 1}
		member := func(name string, level uint32) *provisionrv1.Member {
			m := memberRow(name, name+":1")
			m.FeatureLevel = level
			return m
		}
		change(store, func(tx *state.Tx) {
			tx.PutCluster(&provisionrv1.Cluster{FeatureLevel: 1})
			tx.Put(member("a", 2))
			tx.Put(member("b", 1))
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = (&leveller{store: store, raft: raft, log: slog.New(slog.DiscardHandler)}).run(ctx) }()
		synctest.Wait()
		if len(raft.asked) > 0 {
			t.Errorf("raised over a member's head: %v", raft.asked)
		}
		change(store, func(tx *state.Tx) { tx.Put(member("b", 3)) })
		synctest.Wait()
		time.Sleep(admitRetry)
		synctest.Wait()
		if level := store.Read().Cluster().GetFeatureLevel(); level != 2 || !slices.Equal(raft.asked, []uint32{2, 2}) {
			t.Errorf("level %d after %v", level, raft.asked)
		}
	})
}
