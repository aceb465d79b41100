package secrets_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/secrets"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func state(refs ...*agentv1.SecretRef) *desired.State {
	return &desired.State{Pool: &agentv1.PoolComponent{Secrets: refs}}
}

func ref(name string, revision uint64) *agentv1.SecretRef {
	return &agentv1.SecretRef{Name: name, Revision: revision}
}

// server answers values and counts the calls.
type server struct {
	calls int
	away  bool
	short bool
}

func (s *server) fetch(_ context.Context, refs []*agentv1.SecretRef) ([][]byte, error) {
	s.calls++
	if s.away {
		return nil, errs.New(errs.Unavailable, "no session")
	}
	var values [][]byte
	for _, r := range refs {
		values = append(values, []byte(strings.Repeat(r.Name, int(r.Revision))))
	}
	if s.short {
		return nil, nil
	}
	return values, nil
}

func get(t *testing.T, s *secrets.Store, d *desired.State, name, want string) {
	t.Helper()
	value, err := s.For(d).Secret(t.Context(), name)
	if err != nil || string(value) != want {
		t.Errorf("%s is %q, %v; want %q", name, value, err, want)
	}
}

func TestSecrets(t *testing.T) {
	h, _, _ := hosttest.New(t)
	from := &server{}
	s := secrets.New(&h, from.fetch)
	one := state(ref("db", 1), ref("../../odd%", 1))
	get(t, s, one, "db", "db")
	get(t, s, one, "../../odd%", "../../odd%")
	if from.calls != 1 {
		t.Errorf("%d calls, want all in one", from.calls)
	}
	dir := filepath.Join(h.Root, secrets.Dir)
	list := files(t, dir)
	if len(list) != 2 {
		t.Errorf("files %v", list)
	}
	// Without a server what is there serves, also after a restart; what is new waits.
	from.away = true
	offline := secrets.New(&h, nil)
	get(t, offline, one, "db", "db")
	two := state(ref("db", 2))
	for _, store := range []*secrets.Store{s, offline} {
		if _, err := store.For(two).Secret(t.Context(), "db"); !errs.Is(err, errs.Unavailable) {
			t.Errorf("a revision that is not here: %v", err)
		}
	}
	from.away, from.short = false, true
	if _, err := s.For(two).Secret(t.Context(), "db"); err == nil {
		t.Error("a short answer is taken")
	}
	from.short = false
	get(t, s, two, "db", "dbdb")
	if err := s.Prune(two); err != nil {
		t.Fatal(err)
	}
	if list := files(t, dir); len(list) != 1 || list[0] != "s-db.2" {
		t.Errorf("files %v", list)
	}
	if _, err := s.For(two).Secret(t.Context(), "other"); !errs.Is(err, errs.NotFound) {
		t.Errorf("what is not referred to: %v", err)
	}
}

// files lists a directory, all of which is root's alone.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
		names = append(names, e.Name())
	}
	if info, err := os.Stat(dir); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("%v, %v", info, err)
	}
	return names
}

func TestPruneOfNothing(t *testing.T) {
	if err := secrets.New(&host.Host{Root: t.TempDir()}, nil).Prune(state()); err != nil {
		t.Error(err)
	}
}

// TestLookKeepsNothing: what another desired state refers to is fetched, once, and not written to the disk.
func TestLookKeepsNothing(t *testing.T) {
	h, _, _ := hosttest.New(t)
	from := &server{}
	s := secrets.New(&h, from.fetch)
	get(t, s, state(ref("a", 1)), "a", "a")
	before := files(t, filepath.Join(h.Root, secrets.Dir))
	other := s.Look(state(ref("a", 1), ref("b", 2)))
	for _, want := range []struct{ name, value string }{{"a", "a"}, {"b", "bb"}, {"b", "bb"}} {
		if value, err := other.Secret(t.Context(), want.name); err != nil || string(value) != want.value {
			t.Errorf("%s is %q, %v", want.name, value, err)
		}
	}
	if from.calls != 2 {
		t.Errorf("%d calls", from.calls)
	}
	if after := files(t, filepath.Join(h.Root, secrets.Dir)); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("files %q, before %q", after, before)
	}
	if _, err := other.Secret(t.Context(), "c"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if _, err := secrets.New(&h, nil).Look(state(ref("b", 2))).Secret(t.Context(), "b"); !errs.Is(err, errs.Unavailable) {
		t.Error(err)
	}
}
