package local

import (
	"context"
	"errors"
	"time"

	"github.com/provisionr/provisionr/server/host"
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
	group, err := p.machineCgroup(id)
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
