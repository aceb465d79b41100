package programs_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/programs"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// fetch is a server of one function.
type fetch func(ctx context.Context, r *agentv1.FetchRequest) (*agentv1.FetchResponse, error)

func (f fetch) Fetch(ctx context.Context, r *agentv1.FetchRequest) (func() (*agentv1.FetchResponse, error), error) {
	return func() (*agentv1.FetchResponse, error) { return f(ctx, r) }, nil
}

// TestServerThatSendsNothing must not hold up for ever who asks for programs, among them the runner.
func TestServerThatSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := programs.New(&host.Host{Root: t.TempDir()}, fetch(func(ctx context.Context, _ *agentv1.FetchRequest) (*agentv1.FetchResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		sum := sha256.Sum256(nil)
		sum[0]++
		if _, err := store.Get(t.Context(), "wireguard", sum[:]); !errs.Is(err, errs.Timeout) {
			t.Errorf("error %v", err)
		}
	})
}

// TestBeginningThatIsTooLong: a server refuses to go on behind the end, and would for ever.
func TestBeginningThatIsTooLong(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	content := []byte("program")
	sum := sha256.Sum256(content)
	part := filepath.Join(h.Root, programs.Path("wireguard", sum[:])) + ".part"
	if err := os.MkdirAll(filepath.Dir(part), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(part, []byte("something that is longer"), 0o600); err != nil {
		t.Fatal(err)
	}
	from := &server{content: content}
	store := programs.New(h, fetch(func(_ context.Context, r *agentv1.FetchRequest) (*agentv1.FetchResponse, error) {
		return nil, errs.New(errs.Invalid, "there is nothing at %d", r.Offset)
	}))
	if _, err := store.Get(t.Context(), "wireguard", sum[:]); !errs.Is(err, errs.Invalid) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(part); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("it is kept: %v", err)
	}
	if _, err := programs.New(h, from).Get(t.Context(), "wireguard", sum[:]); err != nil {
		t.Error(err)
	}
}

// TestDamagedAfterItWasSeen: a program that was right is not hashed again until something about it changed.
func TestDamagedAfterItWasSeen(t *testing.T) {
	h := &host.Host{Root: t.TempDir()}
	content := []byte("program")
	sum := sha256.Sum256(content)
	from := &server{content: content}
	store := programs.New(h, from)
	for range 3 {
		path, err := store.Get(t.Context(), "wireguard", sum[:])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.Root, path), []byte("prograM"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if len(from.offsets) != 3 {
		t.Errorf("fetched %d times", len(from.offsets))
	}
}
