package consensus

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/provisionr/provisionr/internal/errs"
)

// leading follows who leads.
type leading struct {
	node *Node

	mu sync.Mutex
	// changed is closed, and made anew, whenever the leader or the readiness of this member to lead changes.
	changed chan struct{}
	// term is the context of this member's leadership; nil while it does not lead.
	term   context.Context
	cancel context.CancelFunc
	// ready says that all entries of former leaders are applied.
	ready bool
}

func newLeading(n *Node) *leading { return &leading{node: n, changed: make(chan struct{})} }

// follow consumes Raft's notices until the node closes. Raft waits for the first kind to be taken.
func (l *leading) follow(notify <-chan bool, observed <-chan raft.Observation) {
	for {
		select {
		case <-l.node.ctx.Done():
			l.lose()
			return
		case gained := <-notify:
			if l.lose(); gained {
				l.gain()
			}
		case <-observed:
			l.mu.Lock()
			l.broadcast()
			l.mu.Unlock()
		}
	}
}

func (l *leading) broadcast() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *leading) gain() {
	term, cancel := context.WithCancel(l.node.ctx)
	l.mu.Lock()
	l.term, l.cancel, l.ready = term, cancel, false
	l.broadcast()
	l.mu.Unlock()
	l.node.config.Logger.Info("this member leads", "member", l.node.config.Name)
	l.node.background.Go(func() {
		// The barrier commits an entry of the new term, and with it those of former leaders.
		if err := l.node.raft.Load().Barrier(0).Error(); err != nil {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.term == term {
			l.ready = true
			l.broadcast()
		}
	})
}

func (l *leading) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == nil {
		return
	}
	l.cancel()
	l.term, l.ready = nil, false
	l.broadcast()
	l.node.config.Logger.Info("this member does not lead any more", "member", l.node.config.Name)
}

// now returns the present leadership, which is nil unless this member leads and is ready, and a channel closed at the
// next change.
func (l *leading) now() (term context.Context, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ready {
		term = l.term
	}
	return term, l.changed
}

// Leader returns the name of the leader as far as this member knows, or "".
func (n *Node) Leader() string {
	_, id := n.raft.Load().LeaderWithID()
	return string(id)
}

// IsLeader reports whether this member takes itself for the leader and has applied all that former leaders committed.
// It may be wrong for the length of a lease: see VerifyLeader.
func (n *Node) IsLeader() bool {
	term, _ := n.leading.now()
	return term != nil
}

// VerifyLeader confirms with a majority that this member leads.
func (n *Node) VerifyLeader(ctx context.Context) error {
	term, _ := n.leading.now()
	if term == nil {
		return n.notLeader()
	}
	if err := n.await(ctx, n.raft.Load().VerifyLeader()); err != nil {
		return raftError("confirm leadership", err)
	}
	if term.Err() != nil {
		return n.notLeader()
	}
	return nil
}

func (n *Node) notLeader() *errs.Error {
	if leader := n.Leader(); leader != "" && leader != n.config.Name {
		return errs.New(errs.Unavailable, "server %s is not the leader: %s is", n.config.Name, leader)
	}
	return errs.New(errs.Unavailable, "the cluster has no leader now").
		WithHint("a majority of the servers must be up and reach each other: provisionr cluster members")
}

// LeaderLoop runs f whenever this member leads, after all that former leaders committed is applied, and cancels f's
// context when it no longer does. It returns f's error if f ends before that, and ctx's at the end.
func (n *Node) LeaderLoop(ctx context.Context, f func(ctx context.Context) error) error {
	for {
		term, changed := n.leading.now()
		if term == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-n.ctx.Done():
				return errs.New(errs.Unavailable, "the Raft node is closed")
			case <-changed:
			}
			continue
		}
		inner, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(term, cancel)
		err := f(inner)
		stop()
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if term.Err() == nil {
			return err
		}
	}
}
