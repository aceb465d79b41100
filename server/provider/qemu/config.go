package qemu

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/archive"
	"github.com/provisionr/provisionr/server/host/machines"
	"github.com/provisionr/provisionr/server/host/network"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/qemu/image"
)

// Config of a Provider.
type Config struct {
	// Site is where it keeps its machines. The default of its name is qemu.
	host.Site
	// Spec of the Provider object. Default: an empty one.
	Spec *provisionrv1.QemuProvider
}

// Provider runs the virtual machines of one cluster on this host. It is safe for concurrent use, also by several processes.
type Provider struct {
	config Config
	log    *slog.Logger
	// scope marks what is the provider's on the host.
	scope    string
	archive  *archive.Archive
	machines *machines.Store
	networks *network.Manager
	builder  *image.Builder
	fetcher  *image.Fetcher

	// mu guards the accelerator, which is empty until it was chosen.
	mu          sync.Mutex
	accelerator string
}

var _ provider.Provider = (*Provider)(nil)

// New checks the configuration and reads what an earlier Provider left in DataDir. It changes nothing on the host but for
// making the directories. It fails when not run by root. That the host lacks QEMU is found by Resolve and Launch.
func New(config Config) (*Provider, error) {
	if os.Geteuid() != 0 {
		return nil, errs.New(errs.Denied, "cannot use the qemu provider: not root").
			WithHint("run the server as root: it makes a bridge, firewall rules and tap devices")
	}
	if err := config.complete(); err != nil {
		return nil, err
	}
	p := &Provider{config: config, log: config.Logger, scope: config.Scope(), archive: archive.Open(config.Archive)}
	p.builder = &image.Builder{Dir: filepath.Join(config.Archive.CacheDir, "qemu"), Archive: p.archive}
	p.fetcher = &image.Fetcher{Dir: filepath.Join(config.Archive.CacheDir, "images"), Progress: p.archive.Progress}
	var err error
	if p.machines, err = machines.Open(config.DataDir); err != nil {
		return nil, errs.New(errs.Internal, "cannot make data directory: %w", err)
	}
	p.networks, err = network.Open(network.Config{Cluster: config.ClusterID, Scope: p.scope, Dir: config.DataDir, Logger: p.log})
	return p, err
}

func (c *Config) complete() error {
	if c.Name == "" {
		c.Name = "qemu"
	}
	if c.Spec == nil {
		c.Spec = &provisionrv1.QemuProvider{}
	}
	return c.Complete()
}

// Capabilities implements provider.Provider. A launch is over when Launch returns or the server is dead: nothing settles.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{SettleWindow: 2 * time.Second, HostBound: true, UserDataLimit: 1 << 20, ManagedAddresses: true}
}

// EnsureNetwork implements provider.Provider.
func (p *Provider) EnsureNetwork(ctx context.Context, object *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	return p.networks.Ensure(ctx, object)
}

// Prune implements provider.Provider: a machine has one directory, so there are no duplicates.
func (p *Provider) Prune(context.Context, string, string) error { return nil }

// Prepare returns the path of the distribution's image and builds it when there is none: two to three minutes, with lines
// to Config.Progress. Concurrent calls, also of other processes, build once.
func (p *Provider) Prepare(ctx context.Context) (string, error) {
	i, err := p.builder.Ensure(ctx)
	return i.Path, err
}

// trimInterval is how often Run bounds the consoles' logs.
const trimInterval = 10 * time.Second

// Run serves on the gateways of all networks, present and future, until ctx ends: the package proxy and the time. Networks
// that it finds in DataDir are made anew first. It bounds the machines' console logs. It also builds the distribution's
// image when there is none, for a Launch may have less time than that takes.
func (p *Provider) Run(ctx context.Context) error {
	proxy, err := p.archive.Proxy()
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		if _, err := p.Prepare(ctx); err != nil && ctx.Err() == nil {
			p.log.ErrorContext(ctx, "cannot build image", "error", err)
		}
	})
	running.Go(func() {
		for tick := time.NewTicker(trimInterval); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				if err := p.trimConsoles(); err != nil {
					p.log.WarnContext(ctx, "cannot bound the console logs", "error", err)
				}
			}
		}
	})
	p.networks.Serve(ctx, proxy)
	return nil
}

// trimConsoles bounds all machines' console logs.
func (p *Provider) trimConsoles() error {
	ids, err := p.machines.IDs()
	for _, id := range ids {
		err = errors.Join(err, trim(filepath.Join(p.machines.Path(id), consoleFile)))
	}
	return err
}
