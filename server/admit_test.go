package server

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// raftConfig is a Raft configuration that this member always leads.
type raftConfig struct {
	mu      sync.Mutex
	servers map[string]string
	// refuse counts the changes that fail first; adding is called before each.
	refuse int
	adding func()
}

func (r *raftConfig) LeaderLoop(ctx context.Context, f func(context.Context) error) error {
	return f(ctx)
}

func (r *raftConfig) AddMember(_ context.Context, name, address string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse > 0 {
		r.refuse--
		return errors.New("no quorum")
	}
	if r.adding != nil {
		r.adding()
	}
	r.servers[name] = address
	return nil
}

func (r *raftConfig) RemoveMember(_ context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.servers, name)
	return nil
}

// writing is held by the one that writes to the store, which has one writer.
var writing sync.Mutex

func change(store *state.Store, with func(*state.Tx)) {
	writing.Lock()
	defer writing.Unlock()
	tx := store.Begin()
	with(tx)
	if err := tx.Commit(); err != nil {
		panic(err)
	}
	store.Publish()
}

func memberRow(name, address string) *provisionrv1.Member {
	return &provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: name}, RaftAddress: address}
}

// keys commits the data key as wrapped for the members.
func keys(tx *state.Tx, names ...string) {
	key := &raftlogv1.SealedKey{Version: 1, Wrapped: map[string][]byte{}}
	for _, name := range names {
		key.Wrapped[name] = []byte{1}
	}
	tx.PutSealedKey(key)
}

// TestAdmission: whoever joined before this leader began, while Raft refused, or not completely, is in Raft as soon as it
// can be, and stays out once it was removed.
func TestAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, config := state.New(), &raftConfig{servers: map[string]string{}, refuse: 3}
		change(store, func(tx *state.Tx) {
			for name, address := range map[string]string{"a": "a:1", "b": "b:1", "c": "c:1"} {
				tx.Put(memberRow(name, address))
			}
			keys(tx, "a", "b")
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a := &admission{store: store, raft: config, log: slog.New(slog.DiscardHandler)}
		go func() { _ = a.run(ctx) }()
		step := func(what string, want map[string]string) {
			t.Helper()
			synctest.Wait()
			config.mu.Lock()
			defer config.mu.Unlock()
			if !maps.Equal(config.servers, want) {
				t.Errorf("%s: %v, want %v", what, config.servers, want)
			}
		}
		step("refused", map[string]string{})
		<-time.After(admitRetry)
		<-time.After(admitRetry)
		step("tried again", map[string]string{"a": "a:1", "b": "b:1"})
		change(store, func(tx *state.Tx) { keys(tx, "a", "b", "c") })
		step("join completed", map[string]string{"a": "a:1", "b": "b:1", "c": "c:1"})
		change(store, func(tx *state.Tx) { tx.Put(memberRow("b", "b:2")) })
		step("moved", map[string]string{"a": "a:1", "b": "b:2", "c": "c:1"})

		config.mu.Lock()
		delete(config.servers, "c")
		config.adding = func() {
			if m := store.Read().Member("c"); m != nil {
				change(store, func(tx *state.Tx) { tx.Delete(m) })
			}
		}
		config.mu.Unlock()
		change(store, func(tx *state.Tx) { tx.Put(memberRow("a", "a:2")) })
		step("removed while it was added", map[string]string{"a": "a:2", "b": "b:2"})
	})
}
