package secrets

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Dir is where values are, below the host's root.
const Dir = "/var/lib/provisionr-agent/secrets"

// Fetch asks a server for values; they come in the order of the references.
type Fetch func(ctx context.Context, refs []*agentv1.SecretRef) ([][]byte, error)

// Store is the values of a host. Safe for several goroutines.
type Store struct {
	host  *host.Host
	fetch Fetch
	mu    sync.Mutex
}

// New returns the store of a host. A nil fetch has what is there only.
func New(h *host.Host, fetch Fetch) *Store { return &Store{host: h, fetch: fetch} }

// For returns the values that a desired state refers to.
func (s *Store) For(d *desired.State) desired.Secrets {
	return s.referred(d)
}

func (s *Store) referred(d *desired.State) referred {
	values := referred{s, make(map[string]*agentv1.SecretRef)}
	for _, ref := range d.Pool.GetSecrets() {
		values.refs[ref.GetName()] = ref
	}
	return values
}

type referred struct {
	*Store
	refs map[string]*agentv1.SecretRef
}

// Look returns the values that a desired state refers to which is not the machine's: those that are fetched for it are not
// written to the disk.
func (s *Store) Look(d *desired.State) desired.Secrets {
	return &look{referred: s.referred(d), fetched: make(map[string][]byte)}
}

// look is what is looked at and not kept.
type look struct {
	referred
	mu      sync.Mutex
	fetched map[string][]byte
}

// Secret implements desired.Secrets.
func (l *look) Secret(ctx context.Context, name string) ([]byte, error) {
	ref := l.refs[name]
	if ref == nil {
		return nil, unreferred(name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	value, err := l.host.ReadFile(file(ref))
	if !errors.Is(err, fs.ErrNotExist) {
		return value, err
	}
	if value, ok := l.fetched[name]; ok {
		return value, nil
	}
	values, err := l.ask(ctx, []*agentv1.SecretRef{ref})
	if err != nil {
		return nil, err
	}
	l.fetched[name] = values[0]
	return values[0], nil
}

func unreferred(name string) error {
	return errs.New(errs.NotFound, "cannot get secret %s: the desired state does not refer to it", name)
}

// Secret implements desired.Secrets.
func (r referred) Secret(ctx context.Context, name string) ([]byte, error) {
	ref := r.refs[name]
	if ref == nil {
		return nil, unreferred(name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	value, err := r.host.ReadFile(file(ref))
	if !errors.Is(err, fs.ErrNotExist) {
		return value, err
	}
	if err := r.get(ctx); err != nil {
		return nil, err
	}
	return r.host.ReadFile(file(ref))
}

// get fetches all values that are missing in one call.
func (r referred) get(ctx context.Context) error {
	var missing []*agentv1.SecretRef
	for _, ref := range r.refs {
		if _, err := r.host.ReadFile(file(ref)); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, ref)
		}
	}
	values, err := r.ask(ctx, missing)
	if err != nil {
		return err
	}
	if err := r.host.MkdirAll(Dir, 0o700); err != nil {
		return err
	}
	for i, ref := range missing {
		if err := r.host.WriteFile(file(ref), values[i], host.Attributes{Mode: 0o600}); err != nil {
			return err
		}
	}
	return nil
}

// ask fetches values, one for each reference.
func (s *Store) ask(ctx context.Context, refs []*agentv1.SecretRef) ([][]byte, error) {
	if s.fetch == nil {
		return nil, errs.New(errs.Unavailable, "cannot get secret %s: revision %d was not fetched yet", refs[0].GetName(), refs[0].GetRevision())
	}
	values, err := s.fetch(ctx, refs)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "cannot get secrets from a server: %w", err)
	}
	if len(values) != len(refs) {
		return nil, errs.New(errs.Internal, "cannot get secrets: a server answered %d values for %d", len(values), len(refs))
	}
	return values, nil
}

// Prune removes the values that a desired state does not refer to.
func (s *Store) Prune(d *desired.State) error {
	keep := make(map[string]bool)
	for _, ref := range d.Pool.GetSecrets() {
		keep[path.Base(file(ref))] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.host.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), strings.TrimPrefix(Dir, "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	failed := []error{err}
	for _, e := range entries {
		if !keep[e.Name()] {
			failed = append(failed, s.host.Remove(path.Join(Dir, e.Name())))
		}
	}
	return errors.Join(failed...)
}

// file is where a value is kept. A name is escaped so far that it stays in the directory.
func file(ref *agentv1.SecretRef) string {
	name := strings.NewReplacer("%", "%25", string(os.PathSeparator), "%2f").Replace(ref.GetName())
	return path.Join(Dir, "s-"+name+"."+strconv.FormatUint(ref.GetRevision(), 10))
}
