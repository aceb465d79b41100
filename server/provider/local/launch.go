package local

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/provisionr/provisionr/cloudinit"
	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local/container"
	"github.com/provisionr/provisionr/server/provider/local/rootfs"
)

// startTimeout bounds the making of one container, which takes some tenths of a second.
const startTimeout = 30 * time.Second

// List implements provider.Provider: what has a directory.
func (p *Provider) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		entries, err := os.ReadDir(p.machinesDir())
		if err := errors.Join(err, ctx.Err()); err != nil {
			yield(provider.Instance{}, provider.Errorf(provider.Unknown, "cannot list machines: %w", err))
			return
		}
		for _, e := range entries {
			if !idPattern.MatchString(e.Name()) {
				continue // not committed
			}
			instance, err := p.instance(e.Name())
			if errors.Is(err, fs.ErrNotExist) {
				continue // terminated meanwhile
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

// Launch implements provider.Provider. It builds the root file system when there is none, which takes minutes: see Prepare.
func (p *Provider) Launch(ctx context.Context, launch provider.LaunchRequest) (provider.Instance, error) {
	request := launch.Request
	network, seed, err := p.validate(launch)
	if err != nil {
		return provider.Instance{}, err
	}
	lower, err := p.Prepare(ctx)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return provider.Instance{}, unknown("cannot launch machine: %w", err)
	}
	id := request.GetMachineId()
	lock, err := lockFile(ctx, filepath.Join(p.locksDir(), id))
	if err != nil {
		return provider.Instance{}, unknown("cannot launch machine "+id+": %w", err)
	}
	defer lock.release()
	instance, err := p.instance(id)
	switch {
	case err == nil && instance.State != provider.Starting && instance.Address.IsValid():
		return instance, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return provider.Instance{}, unknown("cannot launch machine "+id+": %w", err)
	}
	// What an interrupted launch left is removed: its overlay may hold a part of a seed.
	if err := p.destroy(ctx, id); err != nil {
		return provider.Instance{}, unknown("cannot launch machine "+id+": %w", err)
	}
	if err := p.start(ctx, launch, network, lower, seed); err != nil {
		return provider.Instance{}, unknown("cannot launch machine "+id+": %w", errors.Join(err, p.destroy(context.WithoutCancel(ctx), id)))
	}
	p.log.InfoContext(ctx, "machine started", "machine", id, "slot", request.GetSlot(), "address", request.GetAddress())
	return p.instance(id)
}

// start makes a machine of which nothing is there.
func (p *Provider) start(ctx context.Context, launch provider.LaunchRequest, n network, lower string, seed map[string][]byte) error {
	request := launch.Request
	id := request.GetMachineId()
	if err := p.commit(request); err != nil {
		return err
	}
	group, err := p.machineCgroup(id)
	if err != nil {
		return err
	}
	base := idBase(id)
	hardware := request.GetHardware()
	if err := group.create(base, limits{cpus: hardware.GetCpus(), memoryMiB: hardware.GetMemoryMib()}); err != nil {
		return err
	}
	hostname, _, _ := strings.Cut(request.GetFqdn(), ".")
	spec := container.Spec{
		MachineID: id, Hostname: hostname, Lower: lower, Dir: p.machineDir(id), IDBase: base, Payload: group.payload(), Seed: seed,
		Link: container.Link{
			Bridge: bridgeName(p.config.ClusterID, n.Name), Host: vethName(p.config.ClusterID, id), Inside: "eth0",
			MAC: hardwareAddress(id).String(), Alias: tableName(p.config.ClusterID),
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
func (p *Provider) validate(launch provider.LaunchRequest) (network, map[string][]byte, error) {
	request := launch.Request
	id := request.GetMachineId()
	refuse := func(format string, args ...any) (network, map[string][]byte, error) {
		return network{}, nil, provider.Errorf(provider.Invalid, "cannot launch machine "+id+": "+format, args...)
	}
	switch {
	case !idPattern.MatchString(id):
		return refuse("invalid id %q", id)
	case request.GetClusterId() != p.config.ClusterID:
		return refuse("it is of cluster %q, not %q", request.GetClusterId(), p.config.ClusterID)
	case len(launch.UserData) > p.Capabilities().UserDataLimit:
		return refuse("%d bytes of user-data", len(launch.UserData))
	}
	if os := request.GetOs(); os != nil && (os.GetDistribution() != "debian" || os.GetRelease() != rootfs.Release) {
		return refuse("local machines run Debian %s, not %s %s", rootfs.Release, os.GetDistribution(), os.GetRelease())
	}
	p.mu.Lock()
	n, ok := p.networks[request.GetNetwork()]
	p.mu.Unlock()
	if !ok {
		return refuse("network %q was not ensured", request.GetNetwork())
	}
	address, err := netip.ParseAddr(request.GetAddress())
	if err != nil || !n.Prefix.Contains(address) || address == n.Gateway {
		return refuse("invalid address %q in network %s", request.GetAddress(), n.Prefix)
	}
	seed, err := renderSeed(request, launch.UserData, netip.PrefixFrom(address, n.Prefix.Bits()), n.Gateway)
	if err != nil {
		return refuse("%w", err)
	}
	return n, seed, nil
}

// renderSeed returns the files of a NoCloud seed directory.
func renderSeed(r *provisionrv1.LaunchRequest, userData []byte, address netip.Prefix, gateway netip.Addr) (map[string][]byte, error) {
	var servers []netip.Addr
	for _, s := range r.GetDnsServers() {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		servers = append(servers, a)
	}
	meta, err := cloudinit.MetaData(r.GetMachineId(), r.GetFqdn())
	if err != nil {
		return nil, err
	}
	config, err := cloudinit.NetworkConfig(cloudinit.Network{Address: address, Gateway: gateway, Nameservers: servers})
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"user-data": userData, "meta-data": meta, "network-config": config}, nil
}

// unknown keeps the kind of a provider's error and makes every other one Unknown: the call may have acted. What this host
// cannot do at all is Invalid.
func unknown(format string, err error) error {
	var own *provider.Error
	if errors.As(err, &own) {
		return err
	}
	if errs.Is(err, errs.Unsupported) || errs.Is(err, errs.Invalid) || errs.Is(err, errs.Conflict) {
		return provider.Errorf(provider.Invalid, format, err)
	}
	return provider.Errorf(provider.Unknown, format, err)
}
