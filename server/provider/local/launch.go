package local

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/cgroup"
	"github.com/provisionr/provisionr/server/host/network"
	"github.com/provisionr/provisionr/server/host/rootfs"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local/container"
)

// startTimeout bounds the making of one container, which takes some tenths of a second.
const startTimeout = 30 * time.Second

// List implements provider.Provider: what has a directory.
func (p *Provider) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	return p.machines.List(ctx, p.instance)
}

// Launch implements provider.Provider. It builds the root file system when there is none, which takes minutes: see Prepare.
func (p *Provider) Launch(ctx context.Context, launch provider.LaunchRequest) (provider.Instance, error) {
	request := launch.Request
	place, seed, err := p.validate(launch)
	if err != nil {
		return provider.Instance{}, err
	}
	lower, err := p.Prepare(ctx)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return provider.Instance{}, host.Unknown("cannot launch machine: %w", err)
	}
	id := request.GetMachineId()
	lock, err := p.machines.Lock(ctx, id)
	if err != nil {
		return provider.Instance{}, host.Unknown("cannot launch machine "+id+": %w", err)
	}
	defer lock.Release()
	if err := p.machines.CheckBuried(id); err != nil {
		return provider.Instance{}, host.Unknown("cannot launch machine "+id+": %w", err)
	}
	instance, err := p.instance(id)
	switch {
	case err == nil && instance.State != provider.Starting && instance.Address.IsValid():
		return instance, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return provider.Instance{}, host.Unknown("cannot launch machine "+id+": %w", err)
	}
	// What an interrupted launch left is removed: its overlay may hold a part of a seed.
	if err := p.destroy(ctx, id); err != nil {
		return provider.Instance{}, host.Unknown("cannot launch machine "+id+": %w", err)
	}
	if err := p.start(ctx, launch, place, lower, seed); err != nil {
		return provider.Instance{}, host.Unknown("cannot launch machine "+id+": %w", errors.Join(err, p.destroy(context.WithoutCancel(ctx), id)))
	}
	p.log.InfoContext(ctx, "machine started", "machine", id, "slot", request.GetSlot(), "address", request.GetAddress())
	return p.instance(id)
}

// start makes a machine of which nothing is there.
func (p *Provider) start(ctx context.Context, launch provider.LaunchRequest, n network.Network, lower string, seed map[string][]byte) error {
	request := launch.Request
	id := request.GetMachineId()
	if err := p.machines.Commit(request); err != nil {
		return err
	}
	group, err := p.machineCgroup(id)
	if err != nil {
		return err
	}
	base := host.IDBase(id)
	hardware := request.GetHardware()
	if err := group.create(base, cgroup.Limits{CPUs: hardware.GetCpus(), MemoryMiB: hardware.GetMemoryMib()}); err != nil {
		return err
	}
	hostname, _, _ := strings.Cut(request.GetFqdn(), ".")
	spec := container.Spec{
		MachineID: id, Hostname: hostname, Lower: lower, Dir: p.machineDir(id), IDBase: base, Payload: group.payload(), Seed: seed,
		Link: container.Link{
			Bridge: p.networks.Bridge(n.Name), Host: p.linkName(id), Inside: "eth0",
			MAC: host.HardwareAddress(id).String(), Alias: p.scope,
		},
	}
	if err := container.Prepare(spec); err != nil {
		return err
	}
	aux, err := os.Open(group.aux())
	if err != nil {
		return err
	}
	defer func() { _ = aux.Close() }() // only read
	console, err := os.OpenFile(filepath.Join(p.machineDir(id), consoleFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// A caller that gives up must not leave a half: making a container is short.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	return errors.Join(container.Start(ctx, spec, aux, console), console.Close())
}

// validate checks a request and renders its seed. Errors are of the kind Invalid.
func (p *Provider) validate(launch provider.LaunchRequest) (network.Network, map[string][]byte, error) {
	request := launch.Request
	id := request.GetMachineId()
	refuse := func(format string, args ...any) (network.Network, map[string][]byte, error) {
		return network.Network{}, nil, provider.Errorf(provider.Invalid, "cannot launch machine "+id+": "+format, args...)
	}
	switch {
	case !host.ValidID(id):
		return refuse("invalid id %q", id)
	case request.GetClusterId() != p.config.ClusterID:
		return refuse("it is of cluster %q, not %q", request.GetClusterId(), p.config.ClusterID)
	case len(launch.UserData) > p.Capabilities().UserDataLimit:
		return refuse("%d bytes of user-data", len(launch.UserData))
	}
	if os := request.GetOs(); os != nil && (os.GetDistribution() != "debian" || os.GetRelease() != rootfs.Release) {
		return refuse("local machines run Debian %s, not %s %s", rootfs.Release, os.GetDistribution(), os.GetRelease())
	}
	n, address, err := p.networks.Place(request)
	if err != nil {
		return refuse("%w", err)
	}
	seed, err := host.Seed(request, launch.UserData, address, n.Gateway, nil)
	if err != nil {
		return refuse("%w", err)
	}
	return n, seed, nil
}
