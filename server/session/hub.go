package session

import (
	"context"
	"crypto"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// State is what a Hub reads.
type State interface {
	Read() *state.Snapshot
	Watch(tables ...state.Table) <-chan struct{}
}

// Consensus is where a Hub writes.
type Consensus interface {
	// Do commits a command and waits until the local state has it. Commands that are given at the same time are batched.
	Do(ctx context.Context, caller *provisionrv1.Caller, requestID string, command *raftlogv1.Command) (*provisionrv1.Version, error)
	// Sync waits until the local state is as fresh as asked.
	Sync(ctx context.Context, consistency provisionrv1.Consistency) error
}

// Tokens checks join tokens.
type Tokens interface {
	// CheckMachineToken refuses a token that is not that of the machine and attempt.
	CheckMachineToken(machineID string, attempt uint32, token string) error
}

// Authority issues certificates.
type Authority interface {
	// Issue returns a certificate chain in PEM, leaf first.
	Issue(id pki.ID, key crypto.PublicKey, ttl time.Duration) ([]byte, error)
	// RootsPEM returns the certificates that agents are to trust.
	RootsPEM() []byte
}

// Peers reaches agents at any member.
type Peers interface {
	// Connected returns the machines with a session.
	Connected() (machines map[string]bool, complete bool)
	// Ask asks one of them.
	Ask(ctx context.Context, machineID string, ask *agentv1.Ask) (*agentv1.Answer, error)
}

// Secrets opens the values of secrets.
type Secrets interface {
	OpenSecret(s *provisionrv1.Secret) ([]byte, error)
}

// HostSigner certifies SSH host keys.
type HostSigner interface {
	// SignHost certifies a public key in the form of authorized_keys(5); the certificate is in the form of the files named
	// ...-cert.pub. What is no public key has kind Invalid.
	SignHost(publicKey []byte, principals []string, ttl time.Duration) ([]byte, error)
}

// Programs are what agents and their machines can be given to run.
type Programs interface {
	// Program returns the content with a hash.
	Program(sha256 []byte) (content io.ReaderAt, size int64, ok bool)
	// Helpers returns the hashes of what machines may need beside the agent, by NAME/GOARCH as wireguard/amd64.
	Helpers() map[string][]byte
}

// Config of a Hub.
type Config struct {
	// Member is this member's name, Cluster the cluster's id. Required.
	Member, Cluster string
	// State, Consensus, Tokens, Authority and Logger are required.
	State     State
	Consensus Consensus
	Tokens    Tokens
	Authority Authority
	Logger    *slog.Logger
	// Peers reaches the agents of other members too, to look at machines. Default: the agents of this one.
	Peers Peers
	// Secrets, HostSigner and Programs answer the calls of agents about them. Default: each is unsupported.
	Secrets    Secrets
	HostSigner HostSigner
	Programs   Programs
	// Dial opens a TCP connection to a machine, to see whether it can be reached. Default: a net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// PushInterval is the least time between two passes over all sessions after changes of the state. Zero means 100 ms.
	PushInterval time.Duration
	// ReportInterval is how long reports are gathered before they are committed. Zero means 50 ms.
	ReportInterval time.Duration
	// SendTimeout is how long one message may wait for an agent to read before the agent is disconnected. Zero means 30 s.
	SendTimeout time.Duration
}

// Hub serves all agents of one member.
type Hub struct {
	agentv1.UnimplementedAgentServiceServer
	cfg Config

	mu       sync.Mutex
	sessions map[string]*session
	// displaced remembers, for each connected machine, the session that its present one replaced.
	displaced map[string]origin
	revision  uint64
	changed   chan struct{}

	// fresh wakes Run for sessions that have not been told anything yet.
	fresh    chan struct{}
	compiler Compiler
	reports  reports
	// confirms and fetches are the places of calls of agents that take long.
	confirms, fetches *places
	// calls, told, tells and knows pace the calls, reports, events and facts of each machine.
	calls, told, tells, knows *pace
}

var _ agentv1.AgentServiceServer = (*Hub)(nil)

// New makes a Hub. Sessions get their desired state, and reports are committed, while Run runs.
func New(cfg Config) (*Hub, error) {
	if cfg.Member == "" || cfg.Cluster == "" || cfg.State == nil || cfg.Consensus == nil || cfg.Tokens == nil || cfg.Authority == nil || cfg.Logger == nil {
		return nil, errors.New("session: member, cluster, state, consensus, tokens, authority and logger are required")
	}
	for value, standard := range map[*time.Duration]time.Duration{
		&cfg.PushInterval: 100 * time.Millisecond, &cfg.ReportInterval: 50 * time.Millisecond, &cfg.SendTimeout: 30 * time.Second,
	} {
		if *value <= 0 {
			*value = standard
		}
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	h := &Hub{
		cfg: cfg,
		// A member that restarted must not repeat revisions that others remember.
		revision: uint64(time.Now().UnixNano()),
		sessions: map[string]*session{}, displaced: map[string]origin{}, changed: make(chan struct{}),
		fresh: make(chan struct{}, 1), reports: reports{pending: map[string]*report{}, wake: make(chan struct{}, 1)},
		confirms: newPlaces(maxConfirms), fetches: newPlaces(maxFetches),
		calls: newPace(callEvery, callBurst), told: newPace(reportEvery, reportBurst),
		tells: newPace(eventEvery, eventBurst), knows: newPace(factsEvery, factsBurst),
	}
	if h.cfg.Programs != nil {
		h.compiler.Programs = h.cfg.Programs.Helpers()
	}
	if h.cfg.Peers == nil {
		h.cfg.Peers = ownPeers{h}
	}
	return h, nil
}

// Register adds the hub's service to a server made with [ServerOptions].
func (h *Hub) Register(s *grpc.Server) { agentv1.RegisterAgentServiceServer(s, h) }

// Run pushes desired state and commits reports until ctx ends, which is not an error. It ends all sessions.
func (h *Hub) Run(ctx context.Context) error {
	var group sync.WaitGroup
	group.Go(func() { h.commitReports(ctx) })
	h.push(ctx)
	group.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sessions {
		s.end(errs.New(errs.Unavailable, "this server is shutting down"))
	}
	return nil
}

// caller of the commands that a machine causes.
func caller(machineID string) *provisionrv1.Caller {
	return &provisionrv1.Caller{Name: machineID, Kind: string(pki.Agent)}
}
