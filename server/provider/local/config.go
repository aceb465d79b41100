package local

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local/rootfs"
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
	// sources is empty when sourcesErr says why; machines can be listed and removed all the same.
	sources    []rootfs.Source
	sourcesErr error

	// mu guards what follows; changed is closed and replaced when a network is added or removed.
	mu       sync.Mutex
	networks map[string]network
	changed  chan struct{}
}

var _ provider.Provider = (*Provider)(nil)

// New checks the configuration and reads what an earlier Provider left in DataDir. It changes nothing on the host but for
// making the directories. It fails when not run by root. A host
// without sources of the Debian archive is found by Prepare, Launch and Run.
func New(config Config) (*Provider, error) {
	if os.Geteuid() != 0 {
		return nil, errs.New(errs.Denied, "cannot use the local provider: not root").
			WithHint("run the server as root: it makes namespaces, a bridge and firewall rules")
	}
	if err := config.complete(); err != nil {
		return nil, err
	}
	p := &Provider{config: config, log: config.Logger.With("provider", "local"), changed: make(chan struct{})}
	for _, dir := range []string{p.machinesDir(), p.networksDir(), p.locksDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, errs.New(errs.Internal, "cannot make data directory: %w", err)
		}
	}
	var err error
	if p.networks, err = readNetworks(p.networksDir()); err != nil {
		return nil, err
	}
	p.sources, p.sourcesErr = rootfs.HostSources(config.AptDir)
	return p, nil
}

func (c *Config) complete() error {
	if !idPattern.MatchString(c.ClusterID) {
		return errs.New(errs.Invalid, "cannot use the local provider: invalid cluster id %q", c.ClusterID)
	}
	if c.CacheDir == "" {
		c.CacheDir = "/var/cache/provisionr"
	}
	if c.AptDir == "" {
		c.AptDir = "/etc/apt"
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 8 << 30
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

func (p *Provider) machinesDir() string         { return filepath.Join(p.config.DataDir, "machines") }
func (p *Provider) networksDir() string         { return filepath.Join(p.config.DataDir, "networks") }
func (p *Provider) locksDir() string            { return filepath.Join(p.config.DataDir, "locks") }
func (p *Provider) machineDir(id string) string { return filepath.Join(p.machinesDir(), id) }

// Capabilities implements provider.Provider. A launch is over when Launch returns or the server is dead: nothing settles.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{SettleWindow: 2 * time.Second, HostBound: true, UserDataLimit: 1 << 20, ManagedAddresses: true}
}

// Init is the main function of the helpers: the server's binary must call it with the arguments that follow
// [InitCommand], before it does anything else, and exit with its result.
func Init(args []string) (status int) { return initContainer(args) }
