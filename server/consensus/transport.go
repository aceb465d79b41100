package consensus

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/provisionr/provisionr/internal/errs"
)

// rpcTimeout bounds one Raft call on the network; a snapshot may take longer, by its size.
const rpcTimeout = 5 * time.Second

// streams is Raft's network: connections that others made and checked.
type streams struct {
	net.Listener
	node *Node
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// Addr is the address that others use, not the one that the listener is bound to.
func (s *streams) Addr() net.Addr { return address(s.node.config.Address) }

func (s *streams) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.node.ctx, timeout)
	defer cancel()
	return s.node.config.Dial(ctx, s.node.memberAt(target), string(target))
}

// memberAt returns the name of the member at a Raft address, or "".
func (n *Node) memberAt(target raft.ServerAddress) string {
	r := n.raft.Load()
	if r == nil {
		return ""
	}
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.Address == target {
			return string(server.ID)
		}
	}
	return ""
}

// await waits for a future of Raft, which knows no context. Raft never answers some futures that a shutdown overtakes,
// so that nobody may wait for the goroutine.
func (n *Node) await(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// raftError gives an error of Raft a kind.
func raftError(what string, err error) *errs.Error {
	return errs.New(kindOfRaft(err), "cannot %s: %w", what, err).WithHint("%s", errs.HintOf(err))
}

func kindOfRaft(err error) errs.Kind {
	switch err {
	case raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrLeadershipTransferInProgress, raft.ErrRaftShutdown,
		raft.ErrEnqueueTimeout, raft.ErrLeader:
		return errs.Unavailable
	case raft.ErrAbortedByRestore:
		// Not to be repeated without a look at the restored state.
		return errs.Conflict
	case raft.ErrCantBootstrap:
		return errs.Exists
	}
	return errs.KindOf(err)
}

// elsewhere reports whether another leader may take what this member could not.
func elsewhere(err error) bool {
	switch err {
	case raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrLeadershipTransferInProgress, raft.ErrRaftShutdown, raft.ErrEnqueueTimeout:
		return true
	}
	var failed storageError
	return errors.As(err, &failed) || errs.Is(err, errs.Unavailable)
}
