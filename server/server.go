package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/boot"
	"github.com/provisionr/provisionr/server/ca"
	"github.com/provisionr/provisionr/server/consensus"
	"github.com/provisionr/provisionr/server/fleet"
	"github.com/provisionr/provisionr/server/member"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local"
	"github.com/provisionr/provisionr/server/provider/remote"
	"github.com/provisionr/provisionr/server/session"
	"github.com/provisionr/provisionr/server/state"
	"github.com/provisionr/provisionr/server/zonekeys"
)

// Server is one member while it runs.
type Server struct {
	config Config
	id     *identity
	store  *state.Store
	ca     *ca.CA
	// zoneKeys are the DNSSEC and TSIG keys of zones.
	zoneKeys *zonekeys.Keeper
	// names answers DNS.
	names *resolution
	conns *member.Conns
	node  *consensus.Node
	hub   *session.Hub
	fleet *fleet.Fleet
	local *local.Provider
	// providers are those that run here; directory finds all.
	providers provider.Registry
	directory *remote.Directory
	agents    *boot.Agents
	// apiPort and agentPort are the listeners, which get the gateways of networks that appear later.
	apiPort, agentPort *merged
	// begun is the cluster's id before the member belongs to it.
	begun string
	// current says that the state has caught up with the cluster since the start; then caughtUp is closed.
	current  atomic.Bool
	caughtUp chan struct{}
	// fatal gets the reason why the member cannot go on.
	fatal chan error
}

// Run runs a member until ctx ends, which is not an error.
func Run(ctx context.Context, c Config) error {
	s, release, err := open(c)
	if err != nil {
		return err
	}
	defer release()
	return s.run(ctx)
}

// open takes the data directory and finds out who the member is. Release gives it back.
func open(c Config) (s *Server, release func(), err error) {
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	unlock, err := lock(c.DataDir)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	id, err := openIdentity(filepath.Join(c.DataDir, "identity"))
	if err != nil {
		return nil, nil, err
	}
	if id.who != nil && id.who.Name != c.Name {
		return nil, nil, errs.New(errs.Invalid, "cannot start as %s: %s belongs to member %s", c.Name, c.DataDir, id.who.Name).
			WithHint("give --name %s or another data directory", id.who.Name)
	}
	if id.who == nil && !c.Bootstrap && c.JoinToken == "" {
		return nil, nil, errs.New(errs.Invalid, "cannot start: %s belongs to no cluster", c.DataDir).
			WithHint("begin one with --bootstrap, or join one with --join TOKEN --join-address HOST:PORT")
	}
	s = &Server{config: c, id: id, store: state.New(), caughtUp: make(chan struct{}), fatal: make(chan error, 1)}
	if s.agents, err = boot.OpenAgents(os.DirFS(c.AgentDir)); err != nil {
		return nil, nil, errs.New(errs.NotFound, "cannot find the agent in %s: %w", c.AgentDir, err).
			WithHint("build it with `make build`, or name the folder with --agent-dir")
	}
	return s, func() {
		s.agents.Close()
		unlock()
	}, nil
}

// run runs the member until ctx ends; what its parts say then, in whatever order they do, is no error.
func (s *Server) run(ctx context.Context) error {
	if err := s.runParts(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// runParts starts the parts, each after what it needs, and ends with the first that fails.
func (s *Server) runParts(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	defer s.close(cancel, group)

	begin, err := s.belong(ctx)
	if err != nil {
		return err
	}
	if err := s.makeCA(); err != nil {
		return err
	}
	if err := s.openNode(ctx, group); err != nil {
		return err
	}
	if begin != nil {
		if err := s.beginCluster(ctx, begin); err != nil {
			return err
		}
	}
	gateways, err := s.hostNetwork(ctx, group)
	if err != nil {
		return err
	}
	if err := s.serve(ctx, group, gateways...); err != nil {
		return err
	}
	group.Go(func() error {
		select {
		case err := <-s.fatal:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

// close ends what run started: first all that uses the node, then the node.
func (s *Server) close(cancel context.CancelFunc, group *errgroup.Group) {
	cancel()
	// Its error, if any, is what run returns already.
	_ = group.Wait()
	if s.node != nil {
		if err := s.node.Close(); err != nil {
			s.config.Logger.Error("cannot close the log cleanly", "err", err)
		}
	}
	if s.conns != nil {
		s.conns.Close()
	}
}

// cluster is the cluster's id.
func (s *Server) cluster() string {
	if s.id.who != nil {
		return s.id.who.Cluster
	}
	return s.begun
}

// self is this member's record as it should be.
func (s *Server) self() *provisionrv1.Member {
	c := &s.config
	hosts := map[string]string{}
	for network, gateway := range s.gateways(s.store.Read()) {
		hosts[network] = gateway.String()
	}
	for network, host := range c.NetworkHosts {
		hosts[network] = host
	}
	if c.Local != nil {
		hosts[localName] = gatewayOf(c.Local.CIDR).String()
	}
	return &provisionrv1.Member{
		Metadata:     &provisionrv1.Metadata{Name: c.Name},
		RaftAddress:  c.hostPort(c.Ports.Member),
		ApiAddress:   c.hostPort(c.Ports.API),
		AgentAddress: c.hostPort(c.Ports.Agent),
		DnsAddress:   c.hostPort(c.Ports.DNS),
		SealingKey:   s.id.seal.Public(),
		FeatureLevel: featureLevel,
		Version:      c.Version,
		NetworkHosts: hosts,
	}
}

// certificateHosts are the names and addresses that clients may know this member by.
func (s *Server) certificateHosts() []string {
	hosts := []string{s.config.Advertise, "localhost", "127.0.0.1", "::1"}
	for _, host := range s.self().NetworkHosts {
		hosts = append(hosts, host)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// roots are whom this member trusts: the cluster's authorities or, before the state is there, those it joined under.
func (s *Server) roots() []*x509.Certificate {
	if roots := s.ca.Roots(); len(roots) > 0 {
		return roots
	}
	return s.id.store.Roots()
}

func (s *Server) makeCA() (err error) {
	s.ca, err = ca.New(ca.Config{
		State:  func() ca.Records { return s.store.Read() },
		Member: s.config.Name,
		Key:    s.id.seal,
	})
	if err != nil {
		return err
	}
	s.zoneKeys, err = zonekeys.New(zonekeys.Config{
		State: s.store, Sealer: s.ca, Logger: s.config.Logger.With("part", "dns"),
		Put: s.commit,
	})
	return err
}

// die reports, once, why the member cannot go on.
func (s *Server) die(err error) {
	select {
	case s.fatal <- err:
	default:
	}
}

// LockFile is the file of the data directory that a running member has locked. It holds the id of its process.
const LockFile = "lock"

// lock keeps a second process out of the data directory.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errs.New(errs.Internal, "cannot make the data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, LockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, errs.New(errs.Internal, "cannot lock the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, errs.New(errs.Conflict, "cannot start: another process runs on %s", dir).
			WithHint("stop it, or give another --data")
	}
	// Who looks for the process finds it here. On a full disk it does not; that the log says, with a remedy.
	if f.Truncate(0) == nil {
		_, _ = fmt.Fprintln(f, os.Getpid())
	}
	return sync.OnceFunc(func() { f.Close() }), nil
}

func gatewayOf(cidr netip.Prefix) netip.Addr { return cidr.Masked().Addr().Next() }
