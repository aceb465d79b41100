package programs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Dir is where programs are, below the host's root.
const Dir = "/usr/local/lib/provisionr"

const (
	hashDigits = 12
	// maxSize bounds a program in bytes.
	maxSize = 256 << 20
	// stallTimeout is how long a server may send nothing.
	stallTimeout = 30 * time.Second
)

// validName reports whether a program may be called that: up to 63 of a-z, 0-9 and hyphens, the first a letter.
func validName(name string) bool {
	for i, c := range []byte(name) {
		if letter := 'a' <= c && c <= 'z'; !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return name != "" && len(name) <= 63
}

// Fetcher streams a program from an offset on. Next returns io.EOF at the end.
type Fetcher interface {
	Fetch(ctx context.Context, r *agentv1.FetchRequest) (next func() (*agentv1.FetchResponse, error), err error)
}

// Store is the programs of a host. Safe for several goroutines.
type Store struct {
	host    *host.Host
	fetcher Fetcher
	mu      sync.Mutex
	// whole are the programs that were hashed, as they were then: to hash one takes long.
	whole map[string]state
}

// state is what changes when a file does, even where its size and time of change are put back (stat(2)).
type state struct {
	inode        uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// New returns the store of a host. A nil fetcher has what is there only.
func New(h *host.Host, f Fetcher) *Store {
	return &Store{host: h, fetcher: f, whole: make(map[string]state)}
}

// Path is where a program is kept.
func Path(name string, sha []byte) string {
	return path.Join(Dir, name+"-"+hex.EncodeToString(sha)[:hashDigits])
}

// For returns the programs that a desired state names.
func (s *Store) For(d *desired.State) desired.Programs { return named{s, d.Machine.GetPrograms()} }

type named struct {
	*Store
	hashes map[string][]byte
}

// Program implements desired.Programs.
func (n named) Program(ctx context.Context, name string) (string, error) {
	sha, ok := n.hashes[name+"/"+runtime.GOARCH]
	if !ok {
		return "", errs.New(errs.NotFound, "cannot get program %s: no server has it for %s", name, runtime.GOARCH).
			WithHint("put provisionr-%s-%s beside the agents on the servers", name, runtime.GOARCH)
	}
	return n.Get(ctx, name, sha)
}

// Get returns the path of the program with the hash, and fetches it if it is not there yet or damaged.
func (s *Store) Get(ctx context.Context, name string, sha []byte) (string, error) {
	if !validName(name) || len(sha) != sha256.Size {
		return "", errs.New(errs.Invalid, "cannot get program %q: its name or hash is not valid", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	to := Path(name, sha)
	if s.right(to, sha) {
		return to, nil
	}
	if s.fetcher == nil {
		return "", errs.New(errs.Unavailable, "cannot get program %s: there is no server to ask", name)
	}
	if err := s.fetch(ctx, to, sha); err != nil {
		return "", fmt.Errorf("cannot get program %s: %w", name, err)
	}
	return to, nil
}

// right reports whether the program is there and has the hash. The caller holds the lock.
func (s *Store) right(name string, sha []byte) bool {
	info, err := os.Stat(filepath.Join(s.host.Root, name))
	if err != nil {
		return false
	}
	var now state
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		now = state{sys.Ino, sys.Size, sys.Mtim, sys.Ctim}
	}
	if was, ok := s.whole[name]; ok && was == now {
		return true
	}
	sum, err := Sum(s.host, name)
	if err != nil || !bytes.Equal(sum, sha) {
		return false
	}
	s.whole[name] = now
	return true
}

// Sum is the SHA-256 of a file.
func Sum(h *host.Host, name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(h.Root, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}

// fetch goes on with what is there of the program, and gives it its name when it is whole and right.
func (s *Store) fetch(ctx context.Context, to string, sha []byte) (err error) {
	if err := s.host.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	part := filepath.Join(s.host.Root, to+".part")
	f, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	offset, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if err := s.receive(ctx, f, h, sha, uint64(offset)); err != nil {
		// To go on with what is there is only good where the way was bad: it may be too long, or what fills the disk.
		if errs.Is(err, errs.Invalid) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = errors.Join(err, os.Remove(part))
		}
		return err
	}
	if !bytes.Equal(h.Sum(nil), sha) {
		return errors.Join(errs.New(errs.Internal, "what was sent does not have the hash %x", sha), os.Remove(part))
	}
	if err := errors.Join(f.Chmod(0o755), f.Sync()); err != nil {
		return err
	}
	return os.Rename(part, filepath.Join(s.host.Root, to))
}

func (s *Store) receive(ctx context.Context, f *os.File, h hash.Hash, sha []byte, offset uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallTimeout, func() { cancel(errs.New(errs.Timeout, "nothing was sent for %s", stallTimeout)) })
	defer stalled.Stop()
	next, err := s.fetcher.Fetch(ctx, &agentv1.FetchRequest{Sha256: sha, Offset: offset})
	if err != nil {
		return err
	}
	for {
		m, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errors.Join(context.Cause(ctx), errs.FromRPC(err))
		}
		stalled.Reset(stallTimeout)
		if offset += uint64(len(m.Data)); offset > maxSize || m.Size > maxSize {
			return errs.New(errs.Invalid, "larger than %d bytes", maxSize)
		}
		if _, err := f.Write(m.Data); err != nil {
			return err
		}
		h.Write(m.Data)
	}
}

// Prune removes the files of a program, whole or not, but for those to keep, by their base names.
func (s *Store) Prune(name string, keep ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := filepath.Glob(filepath.Join(s.host.Root, Dir, name+"-"+"????????????*"))
	if err != nil {
		return err
	}
	var failed []error
	for _, path := range found {
		base := filepath.Base(path)
		digits := base[len(name)+1:][:hashDigits]
		if _, err := hex.DecodeString(digits); err != nil || slices.Contains(keep, base) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
