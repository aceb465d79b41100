package local

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/archive"
	"github.com/provisionr/provisionr/server/host/machines"
	"github.com/provisionr/provisionr/server/host/network"
	"github.com/provisionr/provisionr/server/provider"
)

// Config of a Provider.
type Config struct {
	// ClusterID names everything that is made on the host. Required: lower-case letters, digits and hyphens.
	ClusterID string
	// DataDir holds the machines. Required; it is created. Its file system must be able to hold an overlay's upper layer.
	DataDir string
	// CacheDir holds root file systems and packages, shared by all clusters of the host. Default: /var/cache/provisionr.
	CacheDir string
	// AptDir is the host's apt configuration, from which the Debian archive's sources are read. Default: /etc/apt.
	AptDir string
	// CacheBytes bounds the package cache. Default: 8 GiB.
	CacheBytes int64
	// AllowHosts reports whether the apt proxy may ask a host (with its port where it has one) besides those of the host's
	// own sources, by http. It is called for each request and must be fast and safe for concurrent use. Default: none.
	AllowHosts func(host string) bool
	// Progress gets the lines of a build of the root file system. Default: they go to Logger, at level debug.
	Progress func(line string)
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Provider runs the machines of one cluster on this host. It is safe for concurrent use, also by several processes.
type Provider struct {
	config Config
	log    *slog.Logger
	// scope marks what is the provider's on the host.
	scope    string
	archive  *archive.Archive
	machines *machines.Store
	networks *network.Manager
}

var _ provider.Provider = (*Provider)(nil)

// New checks the configuration and reads what an earlier Provider left in DataDir. It changes nothing on the host but for
// making the directories. It fails when not run by root. A host without sources of the Debian archive is found by Prepare
// and Launch.
func New(config Config) (*Provider, error) {
	if os.Geteuid() != 0 {
		return nil, errs.New(errs.Denied, "cannot use the local provider: not root").
			WithHint("run the server as root: it makes namespaces, a bridge and firewall rules")
	}
	if err := config.complete(); err != nil {
		return nil, err
	}
	p := &Provider{config: config, log: config.Logger.With("provider", "local"), scope: host.Scope(config.ClusterID, "")}
	p.archive = archive.Open(archive.Config{
		CacheDir: config.CacheDir, AptDir: config.AptDir, CacheBytes: config.CacheBytes, AllowHosts: config.AllowHosts,
		Progress: config.Progress, Logger: p.log,
	})
	var err error
	if p.machines, err = machines.Open(config.DataDir); err != nil {
		return nil, errs.New(errs.Internal, "cannot make data directory: %w", err)
	}
	p.networks, err = network.Open(network.Config{Cluster: config.ClusterID, Scope: p.scope, Dir: config.DataDir, Logger: p.log})
	return p, err
}

func (c *Config) complete() error {
	if !host.ValidID(c.ClusterID) {
		return errs.New(errs.Invalid, "cannot use the local provider: invalid cluster id %q", c.ClusterID)
	}
	if c.CacheDir == "" {
		c.CacheDir = "/var/cache/provisionr"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for _, dir := range []*string{&c.DataDir, &c.CacheDir} {
		if *dir == "" || strings.Contains(*dir, "\n") {
			return errs.New(errs.Invalid, "cannot use the local provider: invalid directory %q", *dir)
		}
		absolute, err := filepath.Abs(*dir)
		if err != nil {
			return errs.New(errs.Internal, "cannot find directory %s: %w", *dir, err)
		}
		*dir = absolute
	}
	return nil
}

func (p *Provider) machineDir(id string) string { return p.machines.Path(id) }

// EnsureNetwork implements provider.Provider.
func (p *Provider) EnsureNetwork(ctx context.Context, object *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	return p.networks.Ensure(ctx, object)
}

// Capabilities implements provider.Provider. A launch is over when Launch returns or the server is dead: nothing settles.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{SettleWindow: 2 * time.Second, HostBound: true, UserDataLimit: 1 << 20, ManagedAddresses: true}
}

// Init is the main function of the helpers: the server's binary must call it with the arguments that follow
// [InitCommand], before it does anything else, and exit with its result.
func Init(args []string) (status int) { return initContainer(args) }
