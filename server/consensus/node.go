package consensus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// commitTimeout trades the idle traffic of the leader (at most one small message in so long to each follower) for the
// time that a write through a follower takes.
const commitTimeout = 10 * time.Millisecond

// Node is one member of the Raft cluster.
type Node struct {
	config    Config
	storage   *storage
	transport *raft.NetworkTransport
	raft      atomic.Pointer[raft.Raft]
	proposer  *proposer
	leading   *leading
	restoring atomic.Bool
	restores  atomic.Uint64

	// ctx ends when the node closes. It bounds what Raft asks for without a context.
	ctx        context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup
	closed     sync.Once
	closeErr   error
	fatal      sync.Once
}

// Open reads the data directory and starts the member. A member that was never part of a cluster waits for Bootstrap or
// for the leader of the cluster that it is added to.
func Open(c Config) (*Node, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	n := &Node{config: c}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	storage, err := openStorage(c.DataDir, c.MinFree, newLogger(c.Logger, "storage"))
	if err != nil {
		n.cancel()
		return nil, err
	}
	n.storage = storage
	if err := n.start(); err != nil {
		n.cancel()
		return nil, errors.Join(err, storage.Close())
	}
	return n, nil
}

func (n *Node) start() error {
	c := n.config
	n.transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: &streams{Listener: c.Listener, node: n}, MaxPool: 3, Timeout: rpcTimeout, Logger: newLogger(c.Logger, "transport"),
	})
	notify := make(chan bool)
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.Name)
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = c.HeartbeatTimeout, c.ElectionTimeout, c.LeaseTimeout
	// Followers learn what is committed with the next entry, or after so long: whoever writes through one waits for it.
	conf.CommitTimeout = min(commitTimeout, c.HeartbeatTimeout/4)
	conf.SnapshotThreshold, conf.TrailingLogs, conf.SnapshotInterval = c.SnapshotThreshold, c.SnapshotThreshold, c.SnapshotInterval
	conf.BatchApplyCh = true
	conf.NotifyCh = notify
	conf.Logger = newLogger(c.Logger, "raft")
	conf.NoLegacyTelemetry = true

	n.leading = newLeading(n)
	n.proposer = newProposer(n)
	// The FSM may stop while NewRaft applies the log.
	c.FSM.OnFatal(n.stop)
	r, err := raft.NewRaft(conf, raftFSM{c.FSM, &n.restores}, n.storage.cache, n.storage.votes, n.storage.snapshots, n.transport)
	if err != nil {
		_ = n.transport.Close()
		if stopped := c.FSM.Stopped(); stopped != nil {
			return stopped
		}
		return damaged("start Raft", c.DataDir, err)
	}
	n.raft.Store(r)
	if stopped := c.FSM.Stopped(); stopped != nil {
		n.cancel()
		return errors.Join(stopped, r.Shutdown().Error(), n.transport.Close())
	}
	observed := make(chan raft.Observation, 16)
	observer := raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	r.RegisterObserver(observer)
	n.background.Go(func() { n.leading.follow(notify, observed) })
	n.background.Go(n.proposer.run)
	n.background.Go(n.promote)
	return nil
}

// stop is called where the member cannot go on: it leaves the cluster's work to others.
func (n *Node) stop(err error) {
	n.fatal.Do(func() {
		if r := n.raft.Load(); r != nil {
			r.Shutdown()
		}
		go n.config.Fatal(err)
	})
}

// Bootstrap makes this member a cluster of one. It returns a Conflict where the member is part of a cluster already.
func (n *Node) Bootstrap() error {
	err := n.raft.Load().BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(n.config.Name), Address: raft.ServerAddress(n.config.Address),
	}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return errs.New(errs.Conflict, "member %s is part of a cluster already", n.config.Name)
	}
	if err != nil {
		return raftError("bootstrap the cluster", err)
	}
	return nil
}

// Status answers this member's view of itself. Sessions are left to others.
func (n *Node) Status() *provisionrv1.MemberStatus {
	r := n.raft.Load()
	snapshot := n.config.Store.Read()
	status := &provisionrv1.MemberStatus{
		Member: snapshot.Member(n.config.Name), Leader: n.IsLeader(), Health: "alive",
		AppliedIndex: snapshot.Version().GetIndex(), CommitIndex: r.CommitIndex(),
	}
	if status.Member == nil {
		status.Member = &provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: n.config.Name}, RaftAddress: n.config.Address}
	}
	status.Voter = n.suffrage(n.config.Name) == raft.Voter
	return status
}

// suffrage returns what a member is in the Raft configuration, or -1.
func (n *Node) suffrage(name string) raft.ServerSuffrage {
	for _, server := range n.raft.Load().GetConfiguration().Configuration().Servers {
		if server.ID == raft.ServerID(name) {
			return server.Suffrage
		}
	}
	return -1
}

// Close stops the member. What was answered before is safe.
func (n *Node) Close() error {
	n.closed.Do(func() {
		n.cancel()
		err := n.raft.Load().Shutdown().Error()
		err = errors.Join(err, n.transport.Close())
		n.background.Wait()
		n.closeErr = errors.Join(err, n.storage.Close())
	})
	return n.closeErr
}
