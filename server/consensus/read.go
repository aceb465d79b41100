package consensus

import (
	"context"

	"github.com/hashicorp/raft"

	"github.com/provisionr/provisionr/internal/errs"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Sync returns when the local state is as fresh as the consistency asks: at once for stale; else at what the leader had
// committed when it was asked. For linearizable the leader confirms with a majority that it leads.
func (n *Node) Sync(ctx context.Context, c provisionrv1.Consistency) error {
	if c == provisionrv1.Consistency_CONSISTENCY_STALE {
		return nil
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, readTimeout)
		defer cancel()
	}
	verify := c == provisionrv1.Consistency_CONSISTENCY_LINEARIZABLE
	index, err := toLeader(ctx, n, readTimeout, "read",
		func(ctx context.Context) (uint64, error) { return n.ReadIndexLocal(ctx, verify) },
		func(ctx context.Context, leader memberv1.MemberServiceClient) (uint64, error) {
			resp, err := leader.ReadIndex(ctx, &memberv1.ReadIndexRequest{Verify: verify})
			return resp.GetIndex(), err
		})
	if errs.Is(err, errs.Timeout) {
		// A read leaves nothing behind.
		return errs.New(errs.Unavailable, "cannot read: the leader does not answer in time: %w", err).
			WithHint("a majority of the servers must be up and reach each other; reads with consistency stale work always")
	}
	if err != nil {
		return err
	}
	if n.config.Store.Read().Version().GetIndex() < index {
		if err := n.canFollow(); err != nil {
			return err
		}
	}
	return n.wait(ctx, func(v *provisionrv1.Version) bool { return v.GetIndex() >= index })
}

// ReadIndexLocal answers the index of the last request that this member, the leader, had committed when it was called.
func (n *Node) ReadIndexLocal(ctx context.Context, verify bool) (uint64, error) {
	term, err := n.awaitTerm(ctx)
	if err != nil {
		return 0, err
	}
	if n.restoring.Load() {
		return 0, errs.New(errs.Unavailable, "the state is being restored from a snapshot")
	}
	index := n.lastRequest(n.raft.Load().CommitIndex())
	if verify {
		if err := n.VerifyLeader(ctx); err != nil {
			return 0, err
		}
	}
	if term.Err() != nil {
		return 0, n.notLeader()
	}
	return index, nil
}

// awaitTerm waits for a new leader to become ready. It must be: until an entry of its own term is committed, its commit
// index may be behind what former leaders answered (Raft dissertation, section 6.4).
func (n *Node) awaitTerm(ctx context.Context) (context.Context, error) {
	for {
		term, changed := n.leading.now()
		if term != nil {
			return term, nil
		}
		if n.raft.Load().State() != raft.Leader {
			return nil, n.notLeader()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lastRequest returns the index of the last request at or before an index. The FSM never sees Raft's own entries, so
// that nobody can wait for those.
func (n *Node) lastRequest(index uint64) uint64 {
	for ; index > 0; index-- {
		var entry raft.Log
		if err := n.storage.cache.GetLog(index, &entry); err != nil {
			break
		}
		if entry.Type == raft.LogCommand {
			return index
		}
	}
	// The rest is in a snapshot, and so in this member's state.
	return n.config.Store.Read().Version().GetIndex()
}

// waitVersion waits until the local state includes a version.
func (n *Node) waitVersion(ctx context.Context, want *provisionrv1.Version) error {
	return n.wait(ctx, func(v *provisionrv1.Version) bool {
		if v.GetIncarnation() != want.GetIncarnation() {
			return v.GetIncarnation() > want.GetIncarnation()
		}
		return v.GetIndex() >= want.GetIndex()
	})
}

func (n *Node) wait(ctx context.Context, reached func(*provisionrv1.Version) bool) error {
	for {
		changed := n.config.Store.Watch()
		if reached(n.config.Store.Read().Version()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errs.New(errs.KindOf(ctx.Err()), "this server has not caught up in time: %w", ctx.Err()).
				WithHint("ask another server, or read with consistency stale")
		case <-n.ctx.Done():
			return errs.New(errs.Unavailable, "this server is stopping")
		}
	}
}
