package programs_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/programs"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// server sends content in small pieces, and breaks off after some of them.
type server struct {
	content []byte
	pieces  int
	offsets []uint64
}

func (s *server) Fetch(_ context.Context, r *agentv1.FetchRequest) (func() (*agentv1.FetchResponse, error), error) {
	s.offsets = append(s.offsets, r.Offset)
	rest, sent := s.content[min(int(r.Offset), len(s.content)):], 0
	return func() (*agentv1.FetchResponse, error) {
		if sent++; s.pieces > 0 && sent > s.pieces {
			return nil, errors.New("cut off")
		}
		if len(rest) == 0 {
			return nil, io.EOF
		}
		n := min(10, len(rest))
		m := &agentv1.FetchResponse{Data: rest[:n], Size: uint64(len(s.content))}
		rest = rest[n:]
		return m, nil
	}, nil
}

func TestProgram(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	content := []byte(strings.Repeat("program ", 20))
	sum := sha256.Sum256(content)
	from := &server{content: content, pieces: 3}
	store := programs.New(h, from)
	all := store.For(&desired.State{Machine: &agentv1.MachineComponent{Programs: map[string][]byte{"wireguard/" + runtime.GOARCH: sum[:]}}})
	if _, err := all.Program(t.Context(), "wireguard"); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Fatalf("error %v", err)
	}
	from.pieces = 0
	path, err := all.Program(t.Context(), "wireguard")
	if err != nil || path != programs.Path("wireguard", sum[:]) {
		t.Fatal(path, err)
	}
	if len(from.offsets) != 2 || from.offsets[1] != 30 {
		t.Errorf("offsets %v", from.offsets)
	}
	info, err := os.Stat(filepath.Join(h.Root, path))
	if err != nil || info.Mode() != 0o755 || info.Size() != int64(len(content)) {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := all.Program(t.Context(), "wireguard"); err != nil || len(from.offsets) != 2 {
		t.Errorf("fetched again: %v, %v", from.offsets, err)
	}
	// Damaged on the disk.
	if err := os.WriteFile(filepath.Join(h.Root, path), []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := programs.New(h, nil).Get(t.Context(), "wireguard", sum[:]); !errs.Is(err, errs.Unavailable) {
		t.Errorf("damaged, with nobody to ask: %v", err)
	}
	if _, err := all.Program(t.Context(), "wireguard"); err != nil || len(from.offsets) != 3 {
		t.Errorf("not fetched again: %v, %v", from.offsets, err)
	}
	if _, err := all.Program(t.Context(), "other"); !errs.Is(err, errs.NotFound) {
		t.Errorf("unknown: %v", err)
	}
	if err := store.Prune("wireguard", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(h.Root, path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not pruned: %v", err)
	}
}

func TestWrongContentIsRefused(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	sum := sha256.Sum256([]byte("right"))
	from := &server{content: []byte("wrong")}
	store := programs.New(h, from)
	for range 2 {
		if _, err := store.Get(t.Context(), "agent", sum[:]); err == nil || !strings.Contains(err.Error(), "does not have the hash") {
			t.Errorf("error %v", err)
		}
	}
	if from.offsets[1] != 0 {
		t.Error("goes on with what was wrong")
	}
	from.content = []byte("right")
	if _, err := store.Get(t.Context(), "agent", sum[:]); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "../x", "A", "1a", "-a", "a_b", "a\n", strings.Repeat("a", 64)} {
		if _, err := store.Get(t.Context(), bad, sum[:]); !errs.Is(err, errs.Invalid) {
			t.Errorf("name %q: %v", bad, err)
		}
	}
}
