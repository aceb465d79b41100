package qemu

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/network"
	"github.com/provisionr/provisionr/server/host/rootfs"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/qemu/image"
)

const (
	// architecture of all machines.
	architecture = "amd64"
	// What a machine has where its pool does not say. The distribution boots in 512 MiB with room for its agent.
	defaultMemoryMiB = 512
	defaultDiskGiB   = 10
	// acceleratorKey is where a choice has the accelerator.
	acceleratorKey = "accelerator"
)

// defaultCPUs is two where the host has them: a boot has things to do at the same time.
func defaultCPUs() uint32 { return uint32(min(2, runtime.NumCPU())) }

// placed is where a machine is to be.
type placed struct {
	network network.Network
	address netip.Prefix
}

// Resolve implements provider.Provider. There are no machine types, no spot capacity and no prices: a wish for them is
// either impossible or met by any machine. It refuses more machines than the host's memory can hold besides those of the
// pool that run already.
func (p *Provider) Resolve(ctx context.Context, w *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	refuse := func(err error) (*provisionrv1.Offer, error) {
		return nil, host.Unknown("cannot run virtual machines for pool "+w.GetPool()+": %w", err)
	}
	if err := image.Tools(); err != nil {
		return refuse(err)
	}
	if p.config.Spec.GetGolden() {
		return refuse(provider.Errorf(provider.Invalid, "provider %s: golden: machines cannot be started from a snapshot yet: remove it", p.config.Name))
	}
	if err := wanted(w.GetHardware(), w.GetImage(), w.GetOs()); err != nil {
		return refuse(err)
	}
	accelerator, proven, err := p.likely(ctx)
	if err != nil {
		return refuse(err)
	}
	c := &provisionrv1.Choice{
		Architecture: architecture, Cpus: cpus(w.GetHardware()), MemoryMib: memory(w.GetHardware()), PriceClass: "this host, kvm",
	}
	if accelerator == tcg {
		c.PriceClass = "this host, emulated"
	}
	if proven {
		c.Extra = map[string]string{acceleratorKey: accelerator}
	}
	if url := w.GetImage().GetUrl(); url != "" {
		c.Image, c.ImageName = w.GetImage().GetSha256(), redact(url)
	} else {
		c.Image, c.ImageName = "debian-"+rootfs.Release, "Debian "+rootfs.Release+" from its packages"
	}
	running, err := p.running(w.GetPool())
	if err != nil {
		return refuse(err)
	}
	if more := int64(w.GetCount()) - running; more > 0 {
		free, err := availableMiB()
		if err != nil {
			return refuse(err)
		}
		if each := int64(c.GetMemoryMib()) + overheadMiB(accelerator); more*each > free {
			return refuse(provider.Errorf(provider.QuotaExceeded, "%d more machines of %d MiB need %d MiB of memory, and this host has %d MiB available",
				more, c.GetMemoryMib(), more*each, free))
		}
	}
	offer := &provisionrv1.Offer{Choices: []*provisionrv1.Choice{c}}
	if accelerator == tcg {
		offer.Warnings = append(offer.Warnings, "this host's processor has no virtualization that QEMU can use: machines are emulated, and take a minute to boot")
	}
	return offer, nil
}

// redact removes what may be secret in an image's URL: user, password and query.
func redact(url string) string {
	url, _, _ = strings.Cut(url, "?")
	scheme, rest, found := strings.Cut(url, "://")
	if !found {
		return url
	}
	authority, path, _ := strings.Cut(rest, "/")
	return scheme + "://" + authority[strings.LastIndexByte(authority, '@')+1:] + "/" + path
}

// wanted refuses what virtual machines of this host cannot be.
func wanted(h *provisionrv1.Hardware, i *provisionrv1.Image, os *provisionrv1.OperatingSystem) error {
	refuse := func(format string, args ...any) error { return provider.Errorf(provider.Invalid, format, args...) }
	if runtime.GOARCH != architecture {
		return refuse("this host is %s, and virtual machines run on %s hosts", runtime.GOARCH, architecture)
	}
	if a := h.GetArchitecture(); a != "" && a != architecture {
		return refuse("architecture %s: virtual machines are %s", a, architecture)
	}
	if types := h.GetTypes(); len(types) > 0 {
		return refuse("hardware type %q: virtual machines have no types, but cpus, memoryMib and diskGib", types[0])
	}
	for _, d := range append([]*provisionrv1.Disk{h.GetRootDisk()}, h.GetDisks()...) {
		switch {
		case d.GetEncrypted():
			return refuse("encrypted disks: they are files of this host, which may encrypt its own")
		case d.GetKeep():
			return refuse("disks that are kept: they are deleted with their machine")
		}
	}
	for n, d := range h.GetDisks() {
		if d.GetSizeGib() == 0 {
			return refuse("disk %d has no size", n+1)
		}
	}
	if i.GetUrl() == "" {
		if i.GetId() != "" || i.GetName() != "" || i.GetFamily() != "" || i.GetParameter() != "" {
			return refuse("the image must be given by url and sha256")
		}
		if os != nil && (os.GetDistribution() != "debian" || os.GetRelease() != rootfs.Release) {
			return refuse("without an image of your own, by url and sha256, machines run Debian %s, not %s %s", rootfs.Release, os.GetDistribution(), os.GetRelease())
		}
		return nil
	}
	if len(i.GetSha256()) != 64 {
		return refuse("the image at %s has no sha256", redact(i.GetUrl()))
	}
	return nil
}

func cpus(h *provisionrv1.Hardware) uint32 {
	if h.GetCpus() > 0 {
		return h.GetCpus()
	}
	return defaultCPUs()
}

func memory(h *provisionrv1.Hardware) uint32 {
	if h.GetMemoryMib() > 0 {
		return h.GetMemoryMib()
	}
	return defaultMemoryMiB
}

// running counts the machines of a pool.
func (p *Provider) running(pool string) (int64, error) {
	ids, err := p.machines.IDs()
	if err != nil {
		return 0, err
	}
	var n int64
	for _, id := range ids {
		request, err := p.machines.Request(id)
		if err != nil || request.GetPool() != pool {
			continue // removed meanwhile, or another's
		}
		if at, err := p.stage(id); err == nil && (at == started || at == paused) {
			n++
		}
	}
	return n, nil
}

// validate checks a request. Errors are of the kind Invalid.
func (p *Provider) validate(launch provider.LaunchRequest) (*order, error) {
	request := launch.Request
	id := request.GetMachineId()
	refuse := func(format string, args ...any) (*order, error) {
		return nil, provider.Errorf(provider.Invalid, "cannot launch machine "+id+": "+format, args...)
	}
	switch {
	case !host.ValidID(id):
		return refuse("invalid id %q", id)
	case request.GetClusterId() != p.config.ClusterID:
		return refuse("it is of cluster %q, not %q", request.GetClusterId(), p.config.ClusterID)
	case len(launch.UserData) > p.Capabilities().UserDataLimit:
		return refuse("%d bytes of user-data", len(launch.UserData))
	}
	if err := wanted(request.GetHardware(), request.GetImage(), request.GetOs()); err != nil {
		return refuse("%w", err)
	}
	if err := image.Tools(); err != nil {
		return nil, host.Unknown("cannot launch machine "+id+": %w", err)
	}
	network, address, err := p.networks.Place(request)
	if err != nil {
		return refuse("%w", err)
	}
	if _, err := host.Seed(request, launch.UserData, address, network.Gateway, host.HardwareAddress(id)); err != nil {
		return refuse("%w", err)
	}
	h := request.GetHardware()
	o := &order{placed: placed{network, address}, cpus: cpus(h), memoryMiB: memory(h), disk: int64(h.GetDiskGib()) << 30}
	if o.disk == 0 && request.GetImage().GetUrl() == "" {
		o.disk = defaultDiskGiB << 30
	}
	for _, d := range h.GetDisks() {
		o.further = append(o.further, int64(d.GetSizeGib())<<30)
	}
	switch a := request.GetChoice().GetExtra()[acceleratorKey]; a {
	case "", kvm, tcg:
		o.accelerator = a
	default:
		return refuse("unknown accelerator %q", a)
	}
	return o, nil
}

// fits refuses what the host has no memory for now.
func (o *order) fits() error {
	free, err := availableMiB()
	if err != nil {
		return provider.Errorf(provider.Unknown, "cannot read the host's memory: %w", err)
	}
	if need := int64(o.memoryMiB) + overheadMiB(o.accelerator); need > free {
		return provider.Errorf(provider.NoCapacity, "the machine needs %d MiB of memory, and this host has %d MiB available", need, free)
	}
	return nil
}

// ensureImage returns the image to boot from, building or downloading it when needed.
func (p *Provider) ensureImage(ctx context.Context, i *provisionrv1.Image) (image.Image, error) {
	if i.GetUrl() == "" {
		return p.builder.Ensure(ctx)
	}
	found, err := p.fetcher.Ensure(ctx, image.Source{URL: i.GetUrl(), SHA256: i.GetSha256()})
	if err != nil {
		return image.Image{}, fmt.Errorf("image %s: %w", redact(i.GetUrl()), err)
	}
	return found, nil
}
