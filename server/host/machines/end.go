package machines

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/cgroup"
	"github.com/provisionr/provisionr/server/host/network"
	"github.com/provisionr/provisionr/server/provider"
)

// killTimeout bounds the wait for killed processes; only one that is stuck in the kernel takes longer.
const killTimeout = 20 * time.Second

// Terminate buries a machine and has destroy remove all of it, under the machine's lock. Errors are provider errors; a
// machine that is not there is success.
func (s *Store) Terminate(ctx context.Context, id string, destroy func(ctx context.Context, id string) error) error {
	if !host.ValidID(id) {
		return nil // there cannot be such a machine
	}
	lock, err := s.Lock(ctx, id)
	if err != nil {
		return host.Unknown("cannot terminate machine "+id+": %w", err)
	}
	if err := errors.Join(s.Bury(id), destroy(ctx, id)); err != nil {
		lock.Release()
		return provider.Errorf(provider.Unknown, "cannot terminate machine %s: %w", id, err)
	}
	if err := lock.Remove(); err != nil {
		return provider.Errorf(provider.Unknown, "cannot terminate machine %s: %w", id, err)
	}
	return nil
}

// Destroy kills the machine's cgroup within the scope and removes its link, in whatever state it is. The caller has its
// lock. The directory, by which the machine is listed, goes last.
func (s *Store) Destroy(ctx context.Context, scope, id, link string) error {
	group, err := cgroup.Of(scope, id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	if err := group.Destroy(ctx); err != nil {
		return err
	}
	if err := network.RemoveLink(link); err != nil {
		return err
	}
	return s.Remove(id)
}

// Cleanup removes all machines, the scope's cgroups, the networks, and the directory as far as it is the store's. It goes on
// after an error and reports all of them; what could not be removed is removed by the next call.
func (s *Store) Cleanup(ctx context.Context, scope string, networks *network.Manager, terminate func(ctx context.Context, id string) error) error {
	all, err := cgroup.Of(scope, "")
	if err != nil {
		return err
	}
	// A machine may have only a cgroup or only a directory left.
	ids, err := s.Left(all.Dir)
	if err != nil {
		return provider.Errorf(provider.Unknown, "cannot clean up: %w", err)
	}
	var failed error
	for _, id := range ids {
		failed = errors.Join(failed, terminate(ctx, id))
	}
	failed = errors.Join(failed, all.Destroy(ctx), networks.Remove(ctx))
	if failed != nil {
		return fmt.Errorf("cannot clean up: %w", failed)
	}
	failed = s.Close()
	// The directory itself may hold more than ours.
	_ = os.Remove(filepath.Clean(s.dir))
	return failed
}
