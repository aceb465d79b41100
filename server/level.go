package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// leveller raises the cluster's feature level, on the leader, as soon as every member understands more: whoever upgrades
// member after member has the new commands with the last one, and nothing else to do.
type leveller struct {
	store  *state.Store
	raft   levelRaft
	caller *provisionrv1.Caller
	log    *slog.Logger
}

// levelRaft is what a leveller needs of consensus.
type levelRaft interface {
	LeaderLoop(ctx context.Context, f func(context.Context) error) error
	Do(ctx context.Context, caller *provisionrv1.Caller, requestID string, cmd *raftlogv1.Command) (*provisionrv1.Version, error)
}

// run raises the level whenever this member leads, until ctx ends.
func (l *leveller) run(ctx context.Context) error {
	return l.raft.LeaderLoop(ctx, func(ctx context.Context) error {
		for {
			changed := l.store.Watch(state.TableMembers, state.TableCluster)
			var again <-chan time.Time
			if level := common(l.store.Read()); level > 0 {
				_, err := l.raft.Do(ctx, l.caller, rand.Text(), &raftlogv1.Command{Kind: &raftlogv1.Command_SetFeatureLevel{
					SetFeatureLevel: &raftlogv1.SetFeatureLevel{Level: level},
				}})
				if err != nil && ctx.Err() == nil {
					l.log.Warn("cannot raise the feature level; trying again", "level", level, "err", err)
					again = time.After(admitRetry)
				}
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

// common returns the highest level that all members understand where it is above the cluster's, else 0.
func common(s *state.Snapshot) uint32 {
	if s.Cluster() == nil {
		return 0
	}
	level := uint32(0)
	for m := range s.Members() {
		if level == 0 || m.GetFeatureLevel() < level {
			level = m.GetFeatureLevel()
		}
	}
	if level <= s.Cluster().GetFeatureLevel() {
		return 0
	}
	return level
}
