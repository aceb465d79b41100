package consensus

import (
	"bytes"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

// stateOf has members, by name, with their sealing keys; wrapped have the data key.
func stateOf(t *testing.T, members map[string]string, wrapped ...string) *state.Store {
	t.Helper()
	store := state.New()
	commands := []*raftlogv1.Command{{Kind: &raftlogv1.Command_InitCluster{InitCluster: &raftlogv1.InitCluster{
		Cluster: &provisionrv1.Cluster{Id: "c-1", Name: "test", FeatureLevel: fsm.Level},
		Objects: []*provisionrv1.Object{{Kind: &provisionrv1.Object_Zone{Zone: &provisionrv1.Zone{
			Metadata: &provisionrv1.Metadata{Name: "default"}, Spec: &provisionrv1.ZoneSpec{Domain: "provisionr.internal"},
		}}}},
	}}}}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		commands = append(commands, &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: &provisionrv1.Member{
			Metadata: &provisionrv1.Metadata{Name: name}, SealingKey: []byte(members[name]), FeatureLevel: fsm.Level, RaftAddress: name + ":1",
		}}}})
	}
	if len(wrapped) > 0 {
		key := &raftlogv1.SealedKey{Version: 1, Wrapped: map[string][]byte{}, Newest: 1, Oldest: 1}
		for _, name := range wrapped {
			key.Wrapped[name] = []byte("wrapped")
		}
		commands = append(commands, &raftlogv1.Command{Kind: &raftlogv1.Command_PutSealedKey{PutSealedKey: &raftlogv1.PutSealedKey{Key: key}}})
	}
	if err := amend(store, &provisionrv1.Caller{Name: "test", Kind: "server"}, commands); err != nil {
		t.Fatal(err)
	}
	return store
}

// prepared has a node with a state prepare the snapshot of another.
func prepared(t *testing.T, now, saved *state.Store) (*state.Snapshot, *provisionrv1.Event, error) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := saved.Read().Save(file); err != nil {
		t.Fatal(err)
	}
	n := &Node{config: Config{Name: "a", Store: now, Logger: slog.New(slog.DiscardHandler)}}
	meta, event, err := n.prepare(file)
	if err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	result := state.New()
	if err := result.Restore(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if want := result.Read().Version().GetIndex(); int64(len(data)) != meta.Size || meta.Index != want {
		t.Errorf("snapshot of %d bytes at %d, Raft is told %d at %d", len(data), want, meta.Size, meta.Index)
	}
	return result.Read(), event, nil
}

// TestPrepare: what Raft restores has the servers of today, and the data key for those alone that can unwrap it, and whom it
// was taken from.
func TestPrepare(t *testing.T) {
	now := stateOf(t, map[string]string{"a": "key a", "b": "key b", "c": "new key c"}, "a", "b", "c")
	saved := stateOf(t, map[string]string{"a": "key a", "c": "old key c", "d": "key d"}, "a", "c", "d")
	result, event, err := prepared(t, now, saved)
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]string{}
	for m := range result.Members() {
		members[m.GetMetadata().GetName()] = string(m.GetSealingKey())
	}
	if diff := cmp.Diff(map[string]string{"a": "key a", "b": "key b", "c": "new key c"}, members); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a", "d"}, slices.Sorted(maps.Keys(result.SealedKey().GetWrapped()))); diff != "" {
		t.Errorf("the data key is wrapped for: %s", diff)
	}
	if got := result.Cluster().GetIncarnation(); got != 2 || result.Version().GetIncarnation() != 2 {
		t.Errorf("incarnation %d, version %v", got, result.Version())
	}
	left, k := now.Read().Cluster(), result.Cluster()
	if before, after := left.GetSerialBase()+uint32(left.GetZoneIndex()), k.GetSerialBase()+uint32(k.GetZoneIndex()); int32(after-before) <= 0 {
		t.Errorf("the zones' serial goes from %d to %d", before, after)
	}
	for _, want := range []string{"joined since then and stay: b", "were removed since then and stay so: d"} {
		if !strings.Contains(event.GetMessage(), want) {
			t.Errorf("event %q does not say %q", event.GetMessage(), want)
		}
	}
}

// TestRefusedSnapshots: what this cluster could not go on from is refused before it replaces anything.
func TestRefusedSnapshots(t *testing.T) {
	now := stateOf(t, map[string]string{"a": "key a", "b": "key b"}, "a", "b")
	other := stateOf(t, map[string]string{"a": "key a"}, "a")
	tx := other.Begin()
	tx.PutCluster(&provisionrv1.Cluster{Id: "c-2", Name: "other"})
	newer := stateOf(t, map[string]string{"a": "key a"}, "a")
	txn := newer.Begin()
	txn.PutCluster(&provisionrv1.Cluster{Id: "c-1", Name: "test", FeatureLevel: fsm.Level + 1})
	for _, each := range []*state.Tx{tx, txn} {
		if err := each.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	other.Publish()
	newer.Publish()
	for name, test := range map[string]struct {
		saved *state.Store
		kind  errs.Kind
	}{
		"of another cluster":      {other, errs.Conflict},
		"of nothing":              {state.New(), errs.Invalid},
		"of a newer version":      {newer, errs.Unsupported},
		"before all members":      {stateOf(t, map[string]string{"z": "key z"}, "z"), errs.Conflict},
		"before all sealing keys": {stateOf(t, map[string]string{"a": "old key a"}, "a"), errs.Conflict},
	} {
		if _, _, err := prepared(t, now, test.saved); !errs.Is(err, test.kind) {
			t.Errorf("%s: %v, want %s", name, err, test.kind)
		}
	}
	if _, _, err := prepared(t, now, stateOf(t, map[string]string{"a": "key a"})); err != nil {
		t.Errorf("without a data key: %v", err)
	}
}
