package consensus

import (
	"context"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

// Conns connects to other members' gRPC services.
type Conns interface {
	Conn(ctx context.Context, member string) (*grpc.ClientConn, error)
}

// Config of a Node.
type Config struct {
	// Name of this member: its identity in the Raft configuration. Required.
	Name string
	// Address is host:port at which other members reach Listener. Required.
	Address string
	// DataDir holds log, votes and snapshots; it is made if it does not exist. Required.
	DataDir string
	// Listener accepts Raft streams of members, past their handshake. Required; Close closes it.
	Listener net.Listener
	// Dial opens a Raft stream to the named member at an address; the name is empty where it is not known. Required.
	Dial func(ctx context.Context, member, address string) (net.Conn, error)
	// Conns reaches the other members' MemberService. Required.
	Conns Conns
	// Store and FSM belong together. Required.
	Store *state.Store
	FSM   *fsm.FSM
	// Fatal is called once, from a goroutine of its own, when the member cannot go on. Default: nothing.
	Fatal func(error)
	// Logger is required.
	Logger *slog.Logger

	// HeartbeatTimeout is how long a follower hears nothing before it stands for election. Default: 500ms.
	HeartbeatTimeout time.Duration
	// ElectionTimeout is how long an election may take. Default: 500ms.
	ElectionTimeout time.Duration
	// LeaseTimeout is how long a leader that hears of no majority goes on. At most HeartbeatTimeout. Default: 250ms.
	LeaseTimeout time.Duration
	// SnapshotThreshold is after how many log entries a snapshot is taken; as many are kept behind it. Default: 8192.
	SnapshotThreshold uint64
	// SnapshotInterval is how often the threshold is checked. Default: 60s.
	SnapshotInterval time.Duration
	// MinFree is how many bytes of the disk are kept free: below it writes are refused. Default: 16 MiB.
	MinFree int64
}

func (c *Config) check() error {
	for _, required := range []struct {
		missing bool
		name    string
	}{
		{c.Name == "", "Name"}, {c.Address == "", "Address"}, {c.DataDir == "", "DataDir"}, {c.Listener == nil, "Listener"},
		{c.Dial == nil, "Dial"}, {c.Conns == nil, "Conns"}, {c.Store == nil, "Store"}, {c.FSM == nil, "FSM"}, {c.Logger == nil, "Logger"},
	} {
		if required.missing {
			return errs.New(errs.Internal, "cannot open the Raft node: Config.%s is required", required.name)
		}
	}
	if c.Fatal == nil {
		c.Fatal = func(error) {}
	}
	setDefault(&c.HeartbeatTimeout, 500*time.Millisecond)
	setDefault(&c.ElectionTimeout, 500*time.Millisecond)
	setDefault(&c.LeaseTimeout, 250*time.Millisecond)
	setDefault(&c.SnapshotThreshold, 8192)
	setDefault(&c.SnapshotInterval, time.Minute)
	setDefault(&c.MinFree, 16<<20)
	return nil
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}
