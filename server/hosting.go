package server

import (
	"context"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/archive"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local"
	"github.com/provisionr/provisionr/server/provider/remote"
	"github.com/provisionr/provisionr/server/state"
)

// LocalDir is where the local provider of a member keeps its machines.
func LocalDir(dataDir string) string { return filepath.Join(dataDir, "local") }

// hostNetwork starts the providers of this host and returns the gateways to listen on besides.
func (s *Server) hostNetwork(ctx context.Context, group *errgroup.Group) (gateways []netip.Addr, err error) {
	s.directory, err = remote.NewDirectory(remote.Config{
		Self: s.config.Name, Local: &s.providers, Conns: s.conns,
		Owner:        func(name string) string { return spec.Owner(s.store.Read().Provider(name)) },
		Capabilities: s.capabilities,
	})
	if err != nil {
		return nil, err
	}
	keep := &keeper{
		self: s.config.Name, store: s.store, registry: &s.providers, log: s.config.Logger.With("part", "provider"),
		build: func(p *provisionrv1.Provider) (provider.Provider, error) { return builderOf(p).build(s, p) },
		say: func(ctx context.Context, p *provisionrv1.Provider, err error) {
			group.Go(func() error {
				s.sayBroken(ctx, p, err)
				return nil
			})
		},
	}
	if s.config.Local != nil {
		if gateways, err = s.startLocal(ctx, group); err != nil {
			return nil, err
		}
	}
	// What the state has already is there before anything asks for it.
	keep.sync(ctx, s.store.Read())
	group.Go(func() error { return keep.run(ctx) })
	return gateways, nil
}

// capabilities are those of a provider that another member owns.
func (s *Server) capabilities(name string) provider.Capabilities {
	p := s.store.Read().Provider(name)
	if b := builderOf(p); b.capabilities != nil {
		return b.capabilities(p)
	}
	return provider.Capabilities{}
}

// startLocal starts the provider of system containers.
func (s *Server) startLocal(ctx context.Context, group *errgroup.Group) (gateways []netip.Addr, err error) {
	s.local, err = local.New(s.site("", LocalDir(s.config.DataDir), s.config.Logger.With("part", "local")))
	if err != nil {
		return nil, err
	}
	if _, err := s.local.EnsureNetwork(ctx, s.localNetwork()); err != nil {
		return nil, err
	}
	if _, err := s.local.Prepare(ctx); err != nil {
		return nil, err
	}
	group.Go(func() error { return s.local.Run(ctx) })
	return []netip.Addr{gatewayOf(s.config.Local.CIDR)}, nil
}

// site is where a provider that runs machines on this host keeps them.
func (s *Server) site(name, dir string, logger *slog.Logger) host.Site {
	return host.Site{
		ClusterID: s.cluster(), Name: name, DataDir: dir, Logger: logger,
		Archive: archive.Config{CacheDir: s.config.CacheDir, AllowHosts: s.repositoryHost, Progress: s.config.Progress, Logger: logger},
	}
}

// repositoryHost reports whether a pool has a repository on the host.
func (s *Server) repositoryHost(host string) bool {
	for pool := range s.store.Read().Pools() {
		for _, r := range pool.GetSpec().GetRepositories() {
			for _, uri := range r.GetUris() {
				if u, err := url.Parse(uri); err == nil && u.Hostname() == host {
					return true
				}
			}
		}
	}
	return false
}

// seed says what the user-data of machines in a network needs.
func (s *Server) seed(snapshot *state.Snapshot, network *provisionrv1.Network) (*provisionrv1.Seed, error) {
	if owner := s.gatewayOwner(snapshot, network); owner != "" && snapshot.Member(owner).GetNetworkHosts()[network.GetMetadata().GetName()] == "" {
		return nil, errs.New(errs.Unavailable, "member %s has not said yet by which address machines of network %s reach it", owner, network.GetMetadata().GetName())
	}
	return s.plannedSeed(snapshot, network)
}

// plannedSeed is seed for a network that may not be applied yet.
func (s *Server) plannedSeed(snapshot *state.Snapshot, network *provisionrv1.Network) (*provisionrv1.Seed, error) {
	seed := &provisionrv1.Seed{CaPins: s.ca.Pins(), AgentSha256: s.agents.SHA256(), AgentVersion: s.config.Version}
	seed.ApiEndpoints, seed.AgentEndpoints = snapshot.Endpoints(network.GetMetadata().GetName())
	return seed, nil
}

// consoleTimeout bounds the question for a console.
const consoleTimeout = 10 * time.Second

// consoles asks a machine's provider for its console.
type consoles struct{ *Server }

func (c consoles) Console(ctx context.Context, m *provisionrv1.Machine) (string, error) {
	p, err := c.directory.Provider(m.GetSpec().GetProvider())
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	return p.Console(ctx, m.GetMetadata().GetName(), m.GetStatus().GetProviderId())
}

// sameMember compares what a member says of itself.
func sameMember(a, b *provisionrv1.Member) bool {
	a, b = proto.CloneOf(a), proto.CloneOf(b)
	a.Metadata, b.Metadata = nil, nil
	return proto.Equal(a, b)
}
