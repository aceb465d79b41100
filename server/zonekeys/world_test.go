package zonekeys

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/seal"
	"github.com/provisionr/provisionr/server/state"
)

const (
	domain  = "provisionr.internal"
	reverse = "0.0.10.in-addr.arpa"
)

// world is a state, the machine that writes it, and a Keeper.
type world struct {
	t      *testing.T
	store  *state.Store
	fsm    *fsm.FSM
	ring   *seal.Ring
	keeper *Keeper
	log    bytes.Buffer

	mu     sync.Mutex
	index  uint64
	opened int
	// broken are names of keys and secrets that cannot be opened.
	broken map[string]bool
}

func newWorld(t *testing.T, level uint32) *world {
	t.Helper()
	w := &world{t: t, store: state.New(), ring: seal.NewRing(), broken: map[string]bool{}}
	w.fsm = fsm.New(w.store, fsm.Level, slog.New(slog.DiscardHandler))
	var err error
	if w.keeper, err = New(Config{State: w.store, Sealer: w, Put: w.put, Logger: slog.New(slog.NewTextHandler(&w.log, nil))}); err != nil {
		t.Fatal(err)
	}
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_InitCluster{InitCluster: &raftlogv1.InitCluster{
		Cluster: &provisionrv1.Cluster{Id: "c", Name: "test", FeatureLevel: level},
		Objects: []*provisionrv1.Object{
			{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
				Metadata: &provisionrv1.Metadata{Name: "local"},
				Spec:     &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{Local: &provisionrv1.LocalProvider{Owner: "a"}}}}}},
			network("local", "10.0.0.0/24"), zoneObject("default", &provisionrv1.ZoneSpec{Domain: domain}),
		},
	}}})
	w.putSealedKey(1)
	return w
}

func network(name, cidr string) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
		Metadata: &provisionrv1.Metadata{Name: name}, Spec: &provisionrv1.NetworkSpec{Cidr: cidr, Managed: true, Provider: "local"}}}}
}

func zoneObject(name string, spec *provisionrv1.ZoneSpec) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{Metadata: &provisionrv1.Metadata{Name: name}, Spec: spec}}}
}

func (w *world) put(_ context.Context, c *raftlogv1.Command) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	entry, err := proto.Marshal(&raftlogv1.Entry{Requests: []*raftlogv1.Request{{Time: timestamppb.Now(), FeatureLevel: 1, Command: c}}})
	if err != nil {
		return err
	}
	w.index++
	results := w.fsm.Apply(w.index, entry)
	if len(results) != 1 {
		return w.fsm.Stopped()
	}
	if results[0].Err != nil {
		return results[0].Err
	}
	return nil
}

func (w *world) must(c *raftlogv1.Command) {
	w.t.Helper()
	if err := w.put(w.t.Context(), c); err != nil {
		w.t.Fatalf("%v: %v", c, err)
	}
}

func (w *world) apply(objects ...*provisionrv1.Object) {
	w.t.Helper()
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{Objects: objects}}})
}

func (w *world) sign(mode string) {
	w.t.Helper()
	w.apply(zoneObject("default", &provisionrv1.ZoneSpec{Domain: domain, Ttl: 300, Dnssec: mode}))
}

func (w *world) SealZoneKey(name string, private []byte) ([]byte, uint64, error) {
	sealed, err := w.ring.Seal(name, private)
	return sealed, w.ring.Version(), err
}

func (w *world) OpenZoneKey(k *provisionrv1.ZoneKey) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened++; w.broken[k.GetMetadata().GetName()] {
		return nil, errs.New(errs.Internal, "broken")
	}
	return w.ring.Open(k.GetMetadata().GetName(), k.GetCiphertext())
}

func (w *world) OpenSecret(s *provisionrv1.Secret) ([]byte, error) {
	if w.isBroken(s.GetMetadata().GetName()) {
		return nil, errs.New(errs.Internal, "broken")
	}
	return w.ring.Open(s.GetMetadata().GetName(), s.GetCiphertext())
}

func (w *world) isBroken(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken[name]
}

func (w *world) breakAll(broken bool, names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		w.broken[name] = broken
	}
}

// putSealedKey has another version of what opens keys and secrets.
func (w *world) putSealedKey(version uint64) {
	w.t.Helper()
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_PutSealedKey{PutSealedKey: &raftlogv1.PutSealedKey{
		Key: &raftlogv1.SealedKey{Version: version, Oldest: 1, Newest: 1},
	}}})
}

func (w *world) setSecret(name, value string) {
	w.t.Helper()
	sealed, err := w.ring.Seal(name, []byte(value))
	if err != nil {
		w.t.Fatal(err)
	}
	revision := w.store.Read().LastSecret(name).GetRevision() + 1
	w.must(&raftlogv1.Command{Kind: &raftlogv1.Command_PutSecret{PutSecret: &raftlogv1.PutSecret{Secret: &provisionrv1.Secret{
		Metadata: &provisionrv1.Metadata{Name: name}, Revision: revision, Ciphertext: sealed, KeyVersion: 1}}}})
}

// keep runs the leader's loop until the returned function is called.
func (w *world) keep() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.keeper.Keep(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != context.Canceled {
			w.t.Errorf("Keep: %v", err)
		}
	}
}

// keys returns the keys of an origin in a state.
func (w *world) keys(origin, in string) []*provisionrv1.ZoneKey {
	return slices.DeleteFunc(slices.Collect(w.store.Read().ZoneKeysOf(origin)), func(k *provisionrv1.ZoneKey) bool { return k.GetState() != in })
}

// states writes the states of an origin's keys.
func (w *world) states(origin string) string {
	var out []string
	for k := range w.store.Read().ZoneKeysOf(origin) {
		out = append(out, k.GetState())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (w *world) only(origin, in string) *provisionrv1.ZoneKey {
	w.t.Helper()
	keys := w.keys(origin, in)
	if len(keys) != 1 {
		w.t.Fatalf("%s has %d %s keys: %s", origin, len(keys), in, w.states(origin))
	}
	return keys[0]
}

// age is how long ago a zone was signed.
func (w *world) age(origin string) time.Duration {
	w.t.Helper()
	return time.Since(w.only(origin, state.KeyActive).GetSigned().AsTime())
}
