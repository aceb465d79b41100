package server

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/api"
	"github.com/provisionr/provisionr/server/auth"
	"github.com/provisionr/provisionr/server/boot"
	"github.com/provisionr/provisionr/server/ca"
	"github.com/provisionr/provisionr/server/console"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/fleet"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/reconcile"
	"github.com/provisionr/provisionr/server/session"
	"github.com/provisionr/provisionr/server/state"
)

// serve starts everything that callers, agents and resolvers see, and the control loop.
func (s *Server) serve(ctx context.Context, group *errgroup.Group, gateways ...netip.Addr) error {
	hosts := s.config.hosts(gateways...)
	var err error
	s.fleet, err = fleet.New(fleet.Config{Self: s.config.Name, Local: s.hub, Conns: s.conns, Members: s.memberNames})
	if err != nil {
		return err
	}
	group.Go(func() error { return s.fleet.Run(ctx) })
	group.Go(func() error { return s.hub.Run(ctx) })
	if err := s.serveAgents(ctx, group, hosts); err != nil {
		return err
	}
	if err := s.serveNames(ctx, group, s.config.dnsHosts(gateways...)); err != nil {
		return err
	}
	if err := s.serveAPI(ctx, group, hosts); err != nil {
		return err
	}
	group.Go(func() error { return s.serveGateways(ctx, gateways) })
	if err := s.startLoop(ctx, group); err != nil {
		return err
	}
	renewer, err := ca.NewRenewer(ca.RenewConfig{
		CA: s.ca, Store: s.id.store, Member: s.config.Name, Hosts: s.certificateHosts,
		Changed: func() <-chan struct{} { return s.store.Watch(state.TableAuthorities) },
		Logger:  s.config.Logger.With("part", "ca"),
	})
	if err != nil {
		return err
	}
	group.Go(func() error {
		if err := s.keepRecord(ctx); err != nil {
			return err
		}
		return renewer.Run(ctx)
	})
	return nil
}

func (s *Server) serveAgents(ctx context.Context, group *errgroup.Group, hosts []netip.Addr) error {
	config, err := pki.ServerTLS(pki.ServerConfig{
		Certificate: s.id.store.Certificate, Roots: s.roots, Cluster: s.cluster(), Clients: []pki.Kind{pki.Agent},
		Optional: true, ExpiredGrace: session.RenewGrace, Protocols: []string{"h2"},
	})
	if err != nil {
		return err
	}
	listener, err := listen(hosts, s.config.Ports.Agent)
	if err != nil {
		return err
	}
	s.agentPort = listener
	rpc := grpc.NewServer(session.ServerOptions(session.TransportConfig{TLS: config})...)
	s.hub.Register(rpc)
	serveGRPC(ctx, group, rpc, listener)
	return nil
}

func (s *Server) serveAPI(ctx context.Context, group *errgroup.Group, hosts []netip.Addr) error {
	log := s.config.Logger.With("part", "api")
	door, err := auth.New(auth.Config{
		State: func() auth.Records { return s.store.Read() }, Roots: s.roots, Public: []string{api.JoinMethod},
		Current: s.current.Load, Logger: log,
	})
	if err != nil {
		return err
	}
	page, err := console.New()
	if err != nil {
		return err
	}
	bootHandler, err := s.bootHandler()
	if err != nil {
		return err
	}
	service, err := api.New(api.Config{
		Proposer: s.node, Syncer: s.node, State: s.store, Door: door, Authority: s.ca, Raft: s.node, Archive: s.node,
		Agents: s.fleet, Consoles: consoles{s}, Records: dnszone.Records, ZoneKeys: s.zoneKeys, Providers: trials{s}, Seed: s.plannedSeed, Adoption: s.adoption,
		Firewall: firewall, Future: s.future, Preview: s.previews(), AgentProgram: s.agents.Agent,
		MayReboot: reconcile.MayReboot, RebootTimeout: reconcile.RebootDeadline, VpnNodes: session.VpnNodes,
		Boot: bootHandler, Console: page, Version: s.config.Version, Logger: log,
	})
	if err != nil {
		return err
	}
	config, err := pki.ServerTLS(pki.ServerConfig{
		Certificate: s.id.store.Certificate, Roots: s.roots, Cluster: s.cluster(),
		Optional: true, Protocols: []string{"h2", "http/1.1"},
	})
	if err != nil {
		return err
	}
	listener, err := listen(hosts, s.config.Ports.API)
	if err != nil {
		return err
	}
	s.apiPort = listener
	group.Go(func() error { return service.Run(ctx, listener, config) })
	return nil
}

// firewall is what the group of a pool is to let in, in a network that may not be applied yet.
func firewall(s *state.Snapshot, p *provisionrv1.Pool, n *provisionrv1.Network) provider.Firewall {
	f := reconcile.FirewallOf(s, p)
	f.Network = n
	return f
}

func (s *Server) bootHandler() (http.Handler, error) {
	return boot.New(boot.Config{
		Member: s.config.Name, Agents: s.agents, Tokens: s.ca, Proposer: s.node, Logger: s.config.Logger.With("part", "boot"),
		Machine: func(id string) *provisionrv1.Machine { return s.store.Read().Machine(id) },
		Adopt:   s.adoptScript,
	})
}

func (s *Server) startLoop(ctx context.Context, group *errgroup.Group) error {
	loop, err := reconcile.New(reconcile.Config{
		Member: s.config.Name, Leadership: s.node, Store: s.store, Providers: s.directory, Sessions: s.fleet, Tokens: s.ca,
		Agents: s.fleet, Seed: s.seed, DesiredHash: s.newCompiler().DesiredHash, Logger: s.config.Logger.With("part", "reconcile"),
	})
	if err != nil {
		return err
	}
	group.Go(func() error { return loop.Run(ctx) })
	members := &admission{store: s.store, raft: s.node, log: s.config.Logger.With("part", "member")}
	group.Go(func() error { return members.run(ctx) })
	levels := &leveller{store: s.store, raft: s.node, caller: s.caller(), log: members.log}
	group.Go(func() error { return levels.run(ctx) })
	key := &dataKey{self: s.config.Name, store: s.store, raft: s.node, ca: s.ca, caller: s.caller(), log: members.log}
	group.Go(func() error { return key.run(ctx) })
	group.Go(func() error { return s.node.LeaderLoop(ctx, s.zoneKeys.Keep) })
	group.Go(func() error {
		return s.node.LeaderLoop(ctx, func(ctx context.Context) error { return s.ca.KeepSSH(ctx, s.authorities, s.commit) })
	})
	return nil
}

// authorities is closed when authorities or the cluster change.
func (s *Server) authorities() <-chan struct{} {
	return s.store.Watch(state.TableAuthorities, state.TableCluster)
}

// commit has a command of this member's own applied.
func (s *Server) commit(ctx context.Context, command *raftlogv1.Command) error {
	_, err := s.node.Do(ctx, s.caller(), "", command)
	return err
}

func (s *Server) memberNames() []string {
	var names []string
	for m := range s.store.Read().Members() {
		names = append(names, m.GetMetadata().GetName())
	}
	return names
}

// keepRecord brings this member's record up to date, once, as soon as the cluster takes it.
func (s *Server) keepRecord(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.node.Sync(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
		if err == nil {
			if !s.current.Swap(true) {
				close(s.caughtUp)
			}
			if err := s.config.checkNetwork(s.store.Read().Network(localName)); err != nil {
				return err
			}
			err = s.putRecord(ctx)
		}
		if err == nil {
			s.config.Ready()
			return nil
		}
		s.config.Logger.Info("the cluster is not ready; waiting", "err", err)
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

func (s *Server) putRecord(ctx context.Context) error {
	present, wanted := s.store.Read().Member(s.config.Name), s.self()
	if present == nil {
		return errs.New(errs.Unavailable, "this member's record has not arrived yet")
	}
	if sameMember(present, wanted) {
		return nil
	}
	_, err := s.node.Do(ctx, s.caller(), "", &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{
		PutMember: &raftlogv1.PutMember{Member: wanted},
	}})
	return err
}
