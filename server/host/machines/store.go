package machines

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/files"
	"github.com/provisionr/provisionr/server/provider"
)

const requestFile = "request.json"

// Store is the machines below a directory, shared by all processes that use it:
//
//	machines/ID/request.json the launch request
//	locks/ID                 one lock per machine
//	gone/ID                  the machine was terminated
type Store struct{ dir string }

// Open makes the directories below dir.
func Open(dir string) (*Store, error) {
	s := &Store{dir}
	for _, d := range []string{s.Dir(), s.locks(), s.gone()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Dir has the machines' directories.
func (s *Store) Dir() string { return filepath.Join(s.dir, "machines") }

func (s *Store) locks() string { return filepath.Join(s.dir, "locks") }
func (s *Store) gone() string  { return filepath.Join(s.dir, "gone") }

// Path is the machine's directory, whether it exists or not.
func (s *Store) Path(id string) string { return filepath.Join(s.Dir(), id) }

// Lock takes the machine's lock, which every change needs.
func (s *Store) Lock(ctx context.Context, id string) (*files.Lock, error) {
	return files.Acquire(ctx, filepath.Join(s.locks(), id), nil)
}

// Commit makes the machine's directory with the request, all at once: a directory with a temporary name is renamed. The
// name has a dot, which no machine id has.
func (s *Store) Commit(request *provisionrv1.LaunchRequest) error {
	data, err := protojson.Marshal(request)
	if err != nil {
		return err
	}
	dir := s.Path(request.GetMachineId())
	temp := dir + ".tmp"
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.Mkdir(temp, 0o700); err != nil {
		return err
	}
	if err := files.Write(filepath.Join(temp, requestFile), data); err != nil {
		return err
	}
	if err := os.Rename(temp, dir); err != nil {
		return err
	}
	return files.SyncDir(s.Dir())
}

// Request returns the request of a machine. It is nil where the directory is a half state of Remove: it is there, and has
// to go. The error is fs.ErrNotExist where there is no machine.
func (s *Store) Request(id string) (*provisionrv1.LaunchRequest, error) {
	if _, err := os.Stat(s.Path(id)); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(s.Path(id), requestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err // it may be read the next time
	}
	request := new(provisionrv1.LaunchRequest)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, request); err != nil {
		return nil, nil
	}
	return request, nil
}

// Remove removes the directory, and what an interrupted Commit left.
func (s *Store) Remove(id string) error {
	return errors.Join(os.RemoveAll(s.Path(id)+".tmp"), os.RemoveAll(s.Path(id)))
}

// buriedLimit bounds how many terminated machines are remembered; the older half is forgotten then.
const buriedLimit = 4096

// Bury remembers that the machine was terminated: a launch that comes late must not make it anew, for its token may be
// used up. It comes before anything of the machine is removed.
func (s *Store) Bury(id string) error {
	if err := os.WriteFile(filepath.Join(s.gone(), id), nil, 0o600); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.gone())
	if err != nil || len(entries) <= buriedLimit {
		return err
	}
	age := map[string]time.Time{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // else another process forgot it
			age[e.Name()] = info.ModTime()
		}
	}
	oldest := slices.SortedFunc(maps.Keys(age), func(a, b string) int { return age[a].Compare(age[b]) })
	for _, name := range oldest[:len(oldest)/2] {
		if err := os.Remove(filepath.Join(s.gone(), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// CheckBuried returns an Unknown error for a machine that was terminated.
func (s *Store) CheckBuried(id string) error {
	if _, err := os.Stat(filepath.Join(s.gone(), id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return provider.Errorf(provider.Unknown, "machine %s was terminated: it is not made again", id)
}

// IDs returns the machines that have a directory, in order.
func (s *Store) IDs() ([]string, error) {
	entries, err := os.ReadDir(s.Dir())
	var ids []string
	for _, e := range entries {
		if host.ValidID(e.Name()) { // else it is not committed
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

// Left returns the machines of which a directory, here or in other, is left.
func (s *Store) Left(other string) ([]string, error) {
	left := map[string]bool{}
	for _, dir := range []string{s.Dir(), other} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() && host.ValidID(e.Name()) {
				left[e.Name()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(left)), nil
}

// List yields the instances that read finds, as provider.Provider's List does. Read returns fs.ErrNotExist for a machine
// that was removed meanwhile.
func (s *Store) List(ctx context.Context, read func(id string) (provider.Instance, error)) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		ids, err := s.IDs()
		if err := errors.Join(err, ctx.Err()); err != nil {
			yield(provider.Instance{}, provider.Errorf(provider.Unknown, "cannot list machines: %w", err))
			return
		}
		for _, id := range ids {
			instance, err := read(id)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := errors.Join(err, ctx.Err()); err != nil {
				yield(provider.Instance{}, provider.Errorf(provider.Unknown, "cannot list machines: %w", err))
				return
			}
			if !yield(instance, nil) {
				return
			}
		}
	}
}

// Close removes the directories, which must have no machines any more.
func (s *Store) Close() error {
	return errors.Join(os.RemoveAll(s.Dir()), os.RemoveAll(s.locks()), os.RemoveAll(s.gone()))
}
