package reconcile

import (
	"context"
	"log/slog"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// Leadership is what the loop needs of consensus.
type Leadership interface {
	// LeaderLoop runs f whenever this member leads, after a barrier, and cancels f's context when it no longer does.
	LeaderLoop(ctx context.Context, f func(context.Context) error) error
	// VerifyLeader confirms with a quorum that this member leads.
	VerifyLeader(ctx context.Context) error
	// Do commits a command and waits until the local state has it.
	Do(ctx context.Context, caller *provisionrv1.Caller, requestID string, command *raftlogv1.Command) (*provisionrv1.Version, error)
}

// Store is the local state.
type Store interface {
	Read() *state.Snapshot
	Watch(tables ...state.Table) <-chan struct{}
}

// Providers finds the provider of a name, wherever it runs.
type Providers interface {
	Provider(name string) (provider.Provider, error)
}

// Sessions knows which agents are connected to any member. Its methods answer at once.
type Sessions interface {
	// Connected returns the machines with a session; complete is false where some member could not be asked lately.
	Connected() (machines map[string]bool, complete bool)
	// Changed is closed at the next change.
	Changed() <-chan struct{}
}

// Config of a Loop.
type Config struct {
	// Member is this member's name, the caller of its commands. Required.
	Member string
	// Leadership, Store, Providers, Sessions and Tokens are required.
	Leadership Leadership
	Store      Store
	Providers  Providers
	Sessions   Sessions
	Tokens     Tokens
	// Agents asks machines to boot again. Default: none is asked.
	Agents Agents
	// Seed returns what the user-data of machines in a network (nil if none) needs, without secrets. Required.
	Seed func(s *state.Snapshot, network *provisionrv1.Network) (*provisionrv1.Seed, error)
	// DesiredHash returns the hexadecimal hash of the desired state that a machine's agent would be given now. Required.
	DesiredHash func(s *state.Snapshot, machineID string) string
	// Logger is required.
	Logger *slog.Logger

	// ListInterval is the time between lists of a provider while nothing changes. Default: 10s.
	ListInterval time.Duration
	// ChangingInterval is the same while machines come or go. Default: 2s.
	ChangingInterval time.Duration
	// ListTimeout bounds one list. Default: 30s.
	ListTimeout time.Duration
	// Concurrency bounds the launches, and the other changing calls, in flight at one provider. Default: 16.
	Concurrency int
	// OrphanGrace is how long an instance that no record explains lives. Default: DefaultOrphanGrace.
	OrphanGrace time.Duration
	// Hook, where set, is called at every point between two steps that a crash could separate: OP.before, OP.called and
	// OP.committed. For tests.
	Hook func(point string)
}

// Loop is the control loop. Its Run does nothing while another member leads.
type Loop struct {
	Config
	caller *provisionrv1.Caller
}

// New returns a loop.
func New(c Config) (*Loop, error) {
	if c.Member == "" || c.Leadership == nil || c.Store == nil || c.Providers == nil || c.Sessions == nil || c.Tokens == nil ||
		c.Seed == nil || c.DesiredHash == nil || c.Logger == nil {
		return nil, errs.New(errs.Internal, "cannot make a reconcile loop: a required field of its configuration is missing")
	}
	c.ListInterval = orDefault(c.ListInterval, 10*time.Second)
	c.ChangingInterval = orDefault(c.ChangingInterval, 2*time.Second)
	c.ListTimeout = orDefault(c.ListTimeout, 30*time.Second)
	c.Concurrency = orDefault(c.Concurrency, 16)
	c.OrphanGrace = orDefault(c.OrphanGrace, DefaultOrphanGrace)
	if c.Hook == nil {
		c.Hook = func(string) {}
	}
	caller := &provisionrv1.Caller{Name: c.Member, Kind: "server", Role: provisionrv1.Role_ROLE_ADMIN}
	return &Loop{Config: c, caller: caller}, nil
}

func orDefault[T comparable](value, standard T) T {
	var zero T
	if value == zero {
		return standard
	}
	return value
}

// Run reconciles whenever this member leads, until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	return l.Leadership.LeaderLoop(ctx, func(ctx context.Context) error { return newTerm(l).run(ctx) })
}
