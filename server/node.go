package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	"github.com/provisionr/provisionr/server/consensus"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/member"
	"github.com/provisionr/provisionr/server/provider/remote"
	"github.com/provisionr/provisionr/server/session"
)

// openNode starts Raft and the hub of agents, and serves both to the other members.
func (s *Server) openNode(ctx context.Context, group *errgroup.Group) (err error) {
	inner, err := listen(s.config.hosts(), s.config.Ports.Member)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			inner.Close()
		}
	}()
	listener, err := member.NewListener(member.ListenerConfig{
		Inner: inner,
		TLS: func() (*tls.Config, error) {
			return pki.ServerTLS(pki.ServerConfig{
				Certificate: s.id.store.Certificate, Roots: s.roots, Cluster: s.cluster(), Clients: []pki.Kind{pki.Server},
				Protocols: []string{member.ProtocolRaft, member.ProtocolGRPC},
			})
		},
		Logger: s.config.Logger.With("part", "member"),
	})
	if err != nil {
		return err
	}
	s.conns, err = member.NewConns(member.ConnsConfig{
		TLS: func(name, protocol string) (*tls.Config, error) {
			return pki.ClientTLS(pki.ClientConfig{
				Certificate: s.id.store.Certificate, Roots: s.roots, Cluster: s.cluster(), Name: name,
				Protocols: []string{protocol}, Sessions: tls.NewLRUClientSessionCache(16),
			})
		},
		Address: func(name string) string { return s.store.Read().Member(name).GetRaftAddress() },
	})
	if err != nil {
		return err
	}
	s.node, err = consensus.Open(consensus.Config{
		Name: s.config.Name, Address: s.config.hostPort(s.config.Ports.Member), DataDir: s.raftDir(),
		Listener: listener.Raft(), Dial: s.conns.DialRaft, Conns: s.conns,
		Store: s.store, FSM: fsm.New(s.store, featureLevel, s.config.Logger.With("part", "fsm")),
		Fatal: s.die, Logger: s.config.Logger.With("part", "raft"),
		HeartbeatTimeout: s.config.patience, ElectionTimeout: s.config.patience, LeaseTimeout: s.config.patience,
	})
	if err != nil {
		return err
	}
	if err := s.makeHub(); err != nil {
		return err
	}
	rpc := member.NewServer(member.NewService(s.node, s.hub), member.OnlyMembers(s.knows)...)
	memberv1.RegisterProviderServiceServer(rpc, remote.NewServer(&s.providers))
	group.Go(func() error { return listener.Run(ctx) })
	serveGRPC(ctx, group, rpc, listener.GRPC())
	return nil
}

// knows reports whether a server is a member. Before this member has the state, every one that the cluster certified may be.
func (s *Server) knows(name string) bool {
	snapshot := s.store.Read()
	return snapshot.Cluster() == nil || snapshot.Member(name) != nil
}

func (s *Server) makeHub() (err error) {
	s.hub, err = session.New(session.Config{
		Member: s.config.Name, Cluster: s.cluster(), State: s.store, Consensus: s.node, Tokens: s.ca, Authority: s.ca,
		Peers: peers{s}, Secrets: s.ca, HostSigner: s.ca, Programs: s.agents,
		Logger: s.config.Logger.With("part", "session"),
	})
	return err
}

// peers reaches agents through the fleet, which is made before agents are served.
type peers struct{ *Server }

func (p peers) Connected() (machines map[string]bool, complete bool) { return p.fleet.Connected() }

func (p peers) Ask(ctx context.Context, machineID string, ask *agentv1.Ask) (*agentv1.Answer, error) {
	return p.fleet.Ask(ctx, machineID, ask)
}

// awaitLeader waits until some member leads.
func (s *Server) awaitLeader(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.node.Leader() == "" {
		select {
		case <-tick.C:
		case err := <-s.fatal:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// stopGrace is how long calls may take to finish when the server stops.
const stopGrace = time.Second

// serveGRPC serves until ctx ends.
func serveGRPC(ctx context.Context, group *errgroup.Group, server *grpc.Server, listener net.Listener) {
	group.Go(func() error { return server.Serve(listener) })
	group.Go(func() error {
		<-ctx.Done()
		timer := time.AfterFunc(stopGrace, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
		return nil
	})
}

// listen opens a TCP port on all hosts as one listener.
func listen(hosts []netip.Addr, port uint16) (*merged, error) {
	var all []net.Listener
	for _, host := range hosts {
		l, err := net.Listen("tcp", netip.AddrPortFrom(host, port).String())
		if err != nil {
			for _, open := range all {
				open.Close()
			}
			return nil, errs.New(errs.Conflict, "cannot listen: %w", err).
				WithHint("another program uses the port, or this host lacks the address; choose with --listen and the port flags")
		}
		all = append(all, l)
	}
	return merge(all), nil
}
