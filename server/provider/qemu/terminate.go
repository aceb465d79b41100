package qemu

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

// Terminate implements provider.Provider: it kills the machine at once and removes everything that was made for it.
func (p *Provider) Terminate(ctx context.Context, machineID, _ string) error {
	if !host.ValidID(machineID) {
		return nil // there cannot be such a machine
	}
	lock, err := p.machines.Lock(ctx, machineID)
	if err != nil {
		return host.Unknown("cannot terminate machine "+machineID+": %w", err)
	}
	if err := errors.Join(p.machines.Bury(machineID), p.destroy(ctx, machineID)); err != nil {
		lock.Release()
		return provider.Errorf(provider.Unknown, "cannot terminate machine %s: %w", machineID, err)
	}
	if err := lock.Remove(); err != nil {
		return provider.Errorf(provider.Unknown, "cannot terminate machine %s: %w", machineID, err)
	}
	return nil
}

// destroy removes a machine in whatever state it is. The caller has its lock. The directory, by which the machine is
// listed, goes last.
func (p *Provider) destroy(ctx context.Context, id string) error {
	group, err := p.group(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	if err := group.Destroy(ctx); err != nil {
		return err
	}
	if err := network.RemoveLink(p.linkName(id)); err != nil {
		return err
	}
	return p.machines.Remove(id)
}

// Cleanup removes everything that this provider made on the host, and DataDir: machines, links, rules, cgroups, and the
// switch for forwarding. It needs no running server, but none may be running. It goes on after an error and reports all
// of them; what could not be removed is removed by the next call. Images stay in the cache.
func (p *Provider) Cleanup(ctx context.Context) error {
	scope, err := cgroup.Of(p.scope, "")
	if err != nil {
		return err
	}
	ids, err := p.machines.Left(scope.Dir)
	if err != nil {
		return provider.Errorf(provider.Unknown, "cannot clean up: %w", err)
	}
	var failed error
	for _, id := range ids {
		failed = errors.Join(failed, p.Terminate(ctx, id, ""))
	}
	failed = errors.Join(failed, scope.Destroy(ctx), p.networks.Remove(ctx))
	if failed != nil {
		return fmt.Errorf("cannot clean up: %w", failed)
	}
	failed = p.machines.Close()
	// DataDir itself may hold more than ours.
	_ = os.Remove(filepath.Clean(p.config.DataDir))
	return failed
}
