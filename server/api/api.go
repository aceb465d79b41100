package api

import (
	"context"
	"crypto"
	"io"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/auth"
	"github.com/provisionr/provisionr/server/ca"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// Bounds of the API.
const (
	// MaxRequest bounds one request, in bytes.
	MaxRequest = 8 << 20
	// MaxWatches bounds the watches that run at a time on one server.
	MaxWatches = 1000
	// FanOut bounds how many machines one call works on at a time.
	FanOut = 32
	// MaxWait bounds a long poll.
	MaxWait = 60 * time.Second
)

// Proposer commits a command, waits until the local state has it and returns the command's own error.
// The same request id again changes nothing.
type Proposer interface {
	Do(ctx context.Context, caller *provisionrv1.Caller, requestID string, cmd *raftlogv1.Command) (*provisionrv1.Version, error)
}

// Syncer brings the local state up to a consistency.
type Syncer interface {
	Sync(ctx context.Context, c provisionrv1.Consistency) error
}

// Snapshots is the local state.
type Snapshots interface {
	Read() *state.Snapshot
	Watch(tables ...state.Table) <-chan struct{}
}

// Raft is the cluster of servers.
type Raft interface {
	// Leader returns the leader's name, or "".
	Leader() string
	// Members returns what this server knows of every member now.
	Members(ctx context.Context) ([]*provisionrv1.MemberStatus, error)
	// RemoveMember takes a member out of the Raft configuration; one that is not in it is no error.
	RemoveMember(ctx context.Context, name string) error
}

// Archive saves and replaces the whole state.
type Archive interface {
	SaveSnapshot(w io.Writer) error
	// RestoreSnapshot replaces the state and begins a new incarnation.
	RestoreSnapshot(ctx context.Context, r io.Reader) error
}

// Agents reaches machines through their sessions, with whichever server these are.
type Agents interface {
	Exec(ctx context.Context, machineID, slot string, req *provisionrv1.ExecRequest, send func(*provisionrv1.ExecResponse) error) error
	// Verify returns when the machine has proven its assumptions anew and the proofs are committed.
	Verify(ctx context.Context, machineID string) error
	// Ask returns the agent's answer. What the agent says that it cannot do is an error of kind Conflict; one of kind Canceled
	// says that the session ended before the answer, as it may when the agent does what it was asked.
	Ask(ctx context.Context, machineID string, ask *agentv1.Ask) (*agentv1.Answer, error)
}

// Consoles fetches the tail of a machine's console.
type Consoles interface {
	Console(ctx context.Context, m *provisionrv1.Machine) (string, error)
}

// Authority issues certificates and the tokens of new servers. Package ca has the one.
type Authority interface {
	Issue(id pki.ID, key crypto.PublicKey, ttl time.Duration) ([]byte, error)
	IssueServer(member string, key crypto.PublicKey, hosts []string) ([]byte, error)
	RootsPEM() []byte
	NewServerToken() (ca.ServerToken, error)
	Admit(member string, sealingKey []byte) (*raftlogv1.Command, error)
	Evict(member string) ([]*raftlogv1.Command, error)
	// SealSecret encrypts a revision of a secret and says with which data key.
	SealSecret(name string, revision uint64, value []byte) (ciphertext []byte, keyVersion uint64, err error)
	// SignUser certifies a public key for ssh logins as any of the principals.
	SignUser(publicKey, keyID string, principals []string, ttl time.Duration) (*ca.SSHCertificate, error)
	// SSHAuthorities are the public keys that certify hosts.
	SSHAuthorities() []string
}

// Config of an API. All fields but those with a default are required.
type Config struct {
	Proposer  Proposer
	Syncer    Syncer
	State     Snapshots
	Door      *auth.Door
	Authority Authority
	Raft      Raft
	Archive   Archive
	Agents    Agents
	Consoles  Consoles
	Providers Providers
	// Seed says what the user-data of machines in a network needs.
	Seed func(*state.Snapshot, *provisionrv1.Network) (*provisionrv1.Seed, error)
	// Adoption says where a machine of a static provider gets the script that has it join.
	Adoption func(*state.Snapshot, *provisionrv1.Machine) (Adoption, error)
	// Firewall is what the group of a pool is to let in. Default: plans say nothing of groups.
	Firewall func(*state.Snapshot, *provisionrv1.Pool, *provisionrv1.Network) provider.Firewall
	// Future is the state as it would be after the caller had applied the objects. An error says why they cannot be applied.
	Future func(caller *provisionrv1.Caller, objects *raftlogv1.ApplyObjects) (*state.Snapshot, error)
	// Preview is what a machine is to be at a snapshot.
	Preview func(s *state.Snapshot, machineID string) (*agentv1.Preview, error)
	// AgentProgram is the SHA-256 of the agent that the servers hold for a GOARCH, or nil.
	AgentProgram func(goarch string) []byte
	// RebootTimeout is how long a machine may take to boot again. Default: 10 minutes.
	RebootTimeout time.Duration
	// MayReboot says why a machine may not boot again now, if it may not.
	MayReboot func(s *state.Snapshot, m *provisionrv1.Machine) error
	// VpnNodes are the ends of a Vpn as a VpnPeer sees them; those with Via are reached through that machine. Default: none.
	VpnNodes func(s *state.Snapshot, vpn, peer string) []*agentv1.VpnNode
	// Records lists the DNS records that the servers serve at a snapshot.
	Records func(*state.Snapshot) []*provisionrv1.Record
	// ZoneKeys has the DNSSEC keys of zones. Default: there are none.
	ZoneKeys ZoneKeys
	// Boot serves /boot/. Default: not found.
	Boot http.Handler
	// Console serves all paths that are nothing else. Default: not found.
	Console http.Handler
	// Version of this build.
	Version string
	Logger  *slog.Logger
}

// JoinMethod is the one method that needs no caller: a new server has a token instead.
const JoinMethod = memberv1.JoinService_Join_FullMethodName

// API serves port 7443.
type API struct {
	config  Config
	handler http.Handler
	grpc    *grpc.Server
}

// New makes an API. The door must let JoinMethod through for new servers to join.
func New(c Config) (*API, error) {
	if c.Proposer == nil || c.Syncer == nil || c.State == nil || c.Door == nil || c.Authority == nil || c.Raft == nil ||
		c.Archive == nil || c.Agents == nil || c.Consoles == nil || c.Records == nil || c.Logger == nil ||
		c.Providers == nil || c.Seed == nil || c.Adoption == nil ||
		c.Future == nil || c.Preview == nil || c.AgentProgram == nil || c.MayReboot == nil {
		return nil, errs.New(errs.Internal, "cannot make API: a required field of its configuration is missing")
	}
	if c.Boot == nil {
		c.Boot = http.NotFoundHandler()
	}
	if c.Console == nil {
		c.Console = http.NotFoundHandler()
	}
	if c.VpnNodes == nil {
		c.VpnNodes = func(*state.Snapshot, string, string) []*agentv1.VpnNode { return nil }
	}
	if c.ZoneKeys == nil {
		c.ZoneKeys = noZoneKeys{}
	}
	if c.RebootTimeout == 0 {
		c.RebootTimeout = 10 * time.Minute
	}
	a := &API{config: c}
	chain, err := newChain(c.Door, c.Logger)
	if err != nil {
		return nil, err
	}
	a.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(MaxRequest),
		grpc.UnaryInterceptor(chain.unary),
		grpc.StreamInterceptor(chain.stream),
	)
	local := newLoopback(chain)
	b := newBase(c)
	register(both{a.grpc, local}, b)
	memberv1.RegisterJoinServiceServer(a.grpc, &joinService{base: b})
	gateway, err := newGateway(local)
	if err != nil {
		return nil, err
	}
	a.handler = a.routes(gateway)
	return a, nil
}

func register(to grpc.ServiceRegistrar, b *base) {
	provisionrv1.RegisterManifestServiceServer(to, &manifestService{base: b})
	provisionrv1.RegisterPoolServiceServer(to, &poolService{base: b})
	provisionrv1.RegisterMachineServiceServer(to, &machineService{base: b})
	provisionrv1.RegisterInfraServiceServer(to, &infraService{base: b})
	provisionrv1.RegisterEventServiceServer(to, &eventService{base: b})
	provisionrv1.RegisterWatchServiceServer(to, &watchService{base: b})
	provisionrv1.RegisterClusterServiceServer(to, &clusterService{base: b})
	provisionrv1.RegisterAccessServiceServer(to, &accessService{base: b})
	provisionrv1.RegisterVpnServiceServer(to, &vpnService{base: b})
	provisionrv1.RegisterSecretServiceServer(to, &secretService{base: b})
}

// both registers a service for callers from outside and for REST.
type both [2]grpc.ServiceRegistrar

func (b both) RegisterService(desc *grpc.ServiceDesc, impl any) {
	b[0].RegisterService(desc, impl)
	b[1].RegisterService(desc, impl)
}
