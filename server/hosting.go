package server

import (
	"context"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
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
		Owner:        func(name string) string { return s.store.Read().Provider(name).GetSpec().GetLocal().GetOwner() },
		Capabilities: func(string) provider.Capabilities { return new(local.Provider).Capabilities() },
	})
	if err != nil || s.config.Local == nil {
		return nil, err
	}
	s.local, err = local.New(local.Config{
		ClusterID: s.cluster(), DataDir: LocalDir(s.config.DataDir), CacheDir: s.config.Local.CacheDir,
		AllowHosts: s.repositoryHost, Progress: s.config.Progress, Logger: s.config.Logger.With("part", "local"),
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.local.EnsureNetwork(ctx, s.localNetwork()); err != nil {
		return nil, err
	}
	if _, err := s.local.Prepare(ctx); err != nil {
		return nil, err
	}
	s.providers.Set(localName, s.local)
	group.Go(func() error { return s.local.Run(ctx) })
	return []netip.Addr{gatewayOf(s.config.Local.CIDR)}, nil
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
