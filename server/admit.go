package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/provisionr/provisionr/server/state"
)

// admitRetry is how long to wait after a member could not be added to Raft.
const admitRetry = time.Second

// admission brings the Raft configuration up to the members' records, on the leader. It looks at what is, not at who has
// just joined: whatever crashed between a member's join and its vote, the next leader adds it. A member that moved gets its
// new address the same way.
//
// It never removes: the API's RemoveMember takes the record first and then the vote, and a record that is missing for
// another reason must not cost one.
type admission struct {
	store *state.Store
	raft  raftMembers
	log   *slog.Logger
	// failed has the last error of each member, which is logged once.
	failed map[string]string
}

// raftMembers is what admission needs of consensus.
type raftMembers interface {
	LeaderLoop(ctx context.Context, f func(context.Context) error) error
	// AddMember changes nothing where the member is there with this address.
	AddMember(ctx context.Context, name, raftAddr string) error
	RemoveMember(ctx context.Context, name string) error
}

// run admits members whenever this member leads, until ctx ends.
func (a *admission) run(ctx context.Context) error {
	return a.raft.LeaderLoop(ctx, func(ctx context.Context) error {
		a.failed = map[string]string{}
		for {
			changed := a.store.Watch(state.TableMembers, state.TableCluster)
			var again <-chan time.Time
			if !a.admitAll(ctx, a.store.Read()) {
				again = time.After(admitRetry)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			case <-again:
			}
		}
	})
}

// admitAll reports whether every member of the snapshot is in Raft. One without the data key has not finished its join.
func (a *admission) admitAll(ctx context.Context, s *state.Snapshot) (complete bool) {
	complete = true
	for m := range s.Members() {
		name := m.GetMetadata().GetName()
		if s.SealedKey().GetWrapped()[name] == nil {
			continue
		}
		err := a.raft.AddMember(ctx, name, m.GetRaftAddress())
		if err == nil && a.store.Read().Member(name) == nil {
			// It was removed meanwhile.
			err = a.raft.RemoveMember(ctx, name)
		}
		if err == nil {
			delete(a.failed, name)
			continue
		}
		complete = false
		if text := err.Error(); a.failed[name] != text && ctx.Err() == nil {
			a.failed[name] = text
			a.log.Warn("cannot add member to raft; trying again", "member", name, "error", err)
		}
	}
	return complete
}
