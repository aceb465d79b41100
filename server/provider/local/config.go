package local

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/archive"
	"github.com/provisionr/provisionr/server/host/machines"
	"github.com/provisionr/provisionr/server/host/network"
	"github.com/provisionr/provisionr/server/provider"
)

// Config of a Provider. The file system of DataDir must be able to hold an overlay's upper layer.
type Config = host.Site

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
	if err := config.Complete(); err != nil {
		return nil, err
	}
	p := &Provider{
		config: config, log: config.Logger.With("provider", "local"), scope: config.Scope(), archive: archive.Open(config.Archive),
	}
	var err error
	if p.machines, err = machines.Open(config.DataDir); err != nil {
		return nil, errs.New(errs.Internal, "cannot make data directory: %w", err)
	}
	p.networks, err = network.Open(network.Config{Cluster: config.ClusterID, Scope: p.scope, Dir: config.DataDir, Logger: p.log})
	return p, err
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
