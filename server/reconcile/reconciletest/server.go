package reconciletest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/reconcile"
	"github.com/provisionr/provisionr/server/state"
)

// Hook is called at every point between two steps of a server that a crash could separate: see reconcile.Config.Hook.
type Hook func(s *Server, point string)

// Server is one process that leads from its start until it is killed or deposed.
type Server struct {
	world *World
	// lost ends the leadership; dead is when nothing that the process does has an effect any more.
	lost, dead context.Context
	depose     context.CancelFunc
	kill       context.CancelFunc
	done       chan struct{}
}

// Start starts a server, which leads at once. There should be one at a time. The hook may be nil; it may kill or depose
// its server.
func (w *World) Start(ctx context.Context, hook Hook) *Server {
	w.t.Helper()
	s := &Server{world: w, done: make(chan struct{})}
	s.dead, s.kill = context.WithCancel(ctx)
	s.lost, s.depose = context.WithCancel(s.dead)
	providers := w.Providers
	if w.Renew != nil {
		providers = w.Renew()
	}
	var registry provider.Registry
	for name, p := range providers {
		registry.Set(name, s.mortal(p))
	}
	c := reconcile.Config{
		Member: "s1", Leadership: s, Store: w.store, Providers: &registry, Sessions: w, Tokens: s, Agents: s,
		Logger: slog.New(slog.DiscardHandler), DesiredHash: DesiredHash,
		Seed: func(*state.Snapshot, *provisionrv1.Network) (*provisionrv1.Seed, error) { return Seed(), nil },
		Hook: func(point string) {
			if hook != nil {
				hook(s, point)
			}
		},
	}
	if w.Loop != nil {
		w.Loop(&c)
	}
	loop, err := reconcile.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		_ = loop.Run(s.lost)
	}()
	return s
}

// Keep starts a server, and another one whenever it ends, until ctx ends.
func (w *World) Keep(ctx context.Context, hook Hook) {
	go func() {
		for ctx.Err() == nil {
			<-w.Start(ctx, hook).Done()
		}
	}()
}

// Kill ends the process: calls in flight are cut off, and nothing that it does afterwards has an effect. A call that a
// provider has begun may still act.
func (s *Server) Kill() { s.kill() }

// Depose takes the leadership away. The process lives on: its calls in flight go on as far as their contexts let them,
// but it commits nothing more.
func (s *Server) Depose() { s.depose() }

// Alive says that the server has been neither killed nor deposed.
func (s *Server) Alive() bool { return s.lost.Err() == nil }

// Done is closed when its loop has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

var (
	errDead    = errors.New("the process is dead")
	errDeposed = errors.New("another member leads")
)

func (s *Server) alive() error {
	if s.dead.Err() != nil {
		return errDead
	}
	return nil
}

// LeaderLoop implements reconcile.Leadership.
func (s *Server) LeaderLoop(ctx context.Context, f func(context.Context) error) error { return f(ctx) }

// VerifyLeader implements reconcile.Leadership.
func (s *Server) VerifyLeader(context.Context) error {
	if s.lost.Err() != nil {
		return errDeposed
	}
	return nil
}

// Do implements reconcile.Leadership.
func (s *Server) Do(ctx context.Context, caller *provisionrv1.Caller, _ string, c *raftlogv1.Command) (*provisionrv1.Version, error) {
	if err := s.VerifyLeader(ctx); err != nil {
		return nil, errs.New(errs.Unavailable, "cannot commit: %w", err)
	}
	if caller.GetKind() != "server" {
		s.world.t.Errorf("the loop calls as %v", caller)
	}
	return s.world.store.Read().Version(), s.world.Do(c)
}

// Ask implements reconcile.Agents.
func (s *Server) Ask(ctx context.Context, id string, ask *agentv1.Ask) (*agentv1.Answer, error) {
	if err := s.alive(); err != nil {
		return nil, err
	}
	return s.world.Ask(ctx, id, ask)
}

// MachineToken implements reconcile.Tokens.
func (s *Server) MachineToken(id string, attempt uint32) (string, error) {
	return token(id, attempt, "join"), nil
}

// BeaconToken implements reconcile.Tokens.
func (s *Server) BeaconToken(id string, attempt uint32) (string, error) {
	return token(id, attempt, "beacon"), nil
}

func token(parts ...any) string {
	sum := sha256.Sum256(fmt.Append(nil, parts...))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Seed is what the user-data of every machine is rendered from.
func Seed() *provisionrv1.Seed {
	return &provisionrv1.Seed{
		CaPins: []string{base64.StdEncoding.EncodeToString(make([]byte, 32))}, ApiEndpoints: []string{"10.88.0.1:7443"},
		AgentEndpoints: []string{"10.88.0.1:7444"}, AgentSha256: map[string]string{"amd64": strings.Repeat("0", 64)},
	}
}

// mortal wraps a provider so that it refuses the calls of a dead process.
func (s *Server) mortal(p provider.Provider) provider.Provider {
	m := mortal{p, s}
	if groups, ok := p.(provider.FirewallGroups); ok {
		return mortalGroups{m, groups}
	}
	return m
}

type mortal struct {
	provider.Provider
	s *Server
}

func (m mortal) Launch(ctx context.Context, r provider.LaunchRequest) (provider.Instance, error) {
	if err := m.s.alive(); err != nil {
		return provider.Instance{}, err
	}
	return m.Provider.Launch(ctx, r)
}

func (m mortal) Terminate(ctx context.Context, machineID, providerID string) error {
	if err := m.s.alive(); err != nil {
		return err
	}
	return m.Provider.Terminate(ctx, machineID, providerID)
}

func (m mortal) Prune(ctx context.Context, machineID, keep string) error {
	if err := m.s.alive(); err != nil {
		return err
	}
	return m.Provider.Prune(ctx, machineID, keep)
}

type mortalGroups struct {
	mortal
	groups provider.FirewallGroups
}

func (m mortalGroups) EnsureFirewall(ctx context.Context, f provider.Firewall) error {
	if err := m.s.alive(); err != nil {
		return err
	}
	return m.groups.EnsureFirewall(ctx, f)
}

func (m mortalGroups) PlanFirewall(ctx context.Context, f provider.Firewall) ([]string, error) {
	return m.groups.PlanFirewall(ctx, f)
}

func (m mortalGroups) Firewalls(ctx context.Context) ([]string, error) {
	return m.groups.Firewalls(ctx)
}

func (m mortalGroups) DeleteFirewall(ctx context.Context, pool string) error {
	if err := m.s.alive(); err != nil {
		return err
	}
	return m.groups.DeleteFirewall(ctx, pool)
}
