package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/provisionr/provisionr/server/provider"
)

// killTimeout bounds the wait for killed processes; only one that is stuck in the kernel takes longer.
const killTimeout = 20 * time.Second

// Terminate implements provider.Provider: it kills the machine at once and removes everything that was made for it.
func (p *Provider) Terminate(ctx context.Context, machineID, _ string) error {
	if !idPattern.MatchString(machineID) {
		return nil // there cannot be such a machine
	}
	lock, err := lockFile(ctx, filepath.Join(p.locksDir(), machineID))
	if err != nil {
		return unknown("cannot terminate machine "+machineID+": %w", err)
	}
	if err := p.destroy(ctx, machineID); err != nil {
		lock.release()
		return provider.Errorf(provider.Unknown, "cannot terminate machine %s: %w", machineID, err)
	}
	if err := lock.remove(); err != nil {
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
	if err := group.destroy(ctx); err != nil {
		return err
	}
	if err := removeLink(vethName(p.config.ClusterID, id)); err != nil {
		return err
	}
	dir := p.machineDir(id)
	return errors.Join(os.RemoveAll(dir+".tmp"), os.RemoveAll(dir))
}
