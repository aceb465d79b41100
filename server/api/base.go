package api

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/auth"
	"github.com/provisionr/provisionr/server/state"
)

// base is what all services share.
type base struct {
	Config
	pools    *tracker
	machines *tracker
	// watches has one token for each watch that runs.
	watches chan struct{}
}

func newBase(c Config) *base {
	return &base{
		Config: c,
		// A pool's status is derived from its machines.
		pools:    &tracker{state: c.State, tables: []state.Table{state.TablePools, state.TableMachines, state.TableSlots}},
		machines: &tracker{state: c.State, tables: []state.Table{state.TableMachines}},
		watches:  make(chan struct{}, MaxWatches),
	}
}

// read returns a snapshot that is as fresh as asked.
func (b *base) read(ctx context.Context, c provisionrv1.Consistency) (*state.Snapshot, error) {
	if c == provisionrv1.Consistency_CONSISTENCY_UNSPECIFIED {
		c = provisionrv1.Consistency_CONSISTENCY_LEADER
	}
	if err := b.Syncer.Sync(ctx, c); err != nil {
		return nil, err
	}
	return b.State.Read(), nil
}

// poll is read after the tracked tables changed beyond a log index, or after wait. An index of 0 does not wait.
func (b *base) poll(ctx context.Context, c provisionrv1.Consistency, t *tracker, index uint64, wait *durationpb.Duration) (*state.Snapshot, error) {
	snapshot, err := b.read(ctx, c)
	if err != nil || index == 0 {
		return snapshot, err
	}
	most := MaxWait
	if wait != nil {
		if err := wait.CheckValid(); err != nil || wait.AsDuration() < 0 {
			return nil, errs.New(errs.Invalid, "cannot wait: wait is not a duration above zero")
		}
		most = min(most, wait.AsDuration())
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		changed, next := t.changed()
		if changed > index {
			return b.State.Read(), nil
		}
		select {
		case <-next:
		case <-timer.C:
			return b.State.Read(), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tracker remembers when a set of tables last changed, as far as it was asked.
type tracker struct {
	state  Snapshots
	tables []state.Table

	mu    sync.Mutex
	index uint64
	next  <-chan struct{}
}

// changed returns a log index that is not before the last change of the tables, and a channel that the next one closes.
// What happened before the first call counts as a change: a poll may answer early, never late.
func (t *tracker) changed() (uint64, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next != nil {
		select {
		case <-t.next:
		default:
			return t.index, t.next
		}
	}
	t.next = t.state.Watch(t.tables...)
	t.index = t.state.Read().Version().GetIndex()
	return t.index, t.next
}

// maxRequestID bounds the ids that clients choose, in bytes.
const maxRequestID = 64

// write commits a command for the caller. A client's request id counts within that caller's requests only.
func (b *base) write(ctx context.Context, requestID string, cmd *raftlogv1.Command) (*provisionrv1.Version, error) {
	caller := auth.CallerOf(ctx)
	if caller == nil {
		return nil, errs.New(errs.Internal, "cannot write: nobody was authenticated")
	}
	if len(requestID) > maxRequestID {
		return nil, errs.New(errs.Invalid, "cannot accept request_id: longer than %d bytes", maxRequestID)
	}
	if requestID == "" {
		requestID = newID()
	} else {
		requestID = caller.GetKind() + "/" + caller.GetName() + "/" + requestID
	}
	return b.Proposer.Do(ctx, caller, requestID, cmd)
}

// written is write for methods that answer with nothing but the version.
func (b *base) written(ctx context.Context, requestID string, cmd *raftlogv1.Command) (*provisionrv1.WriteResponse, error) {
	version, err := b.write(ctx, requestID, cmd)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.WriteResponse{Version: version}, nil
}

func deleteObject(kind, name string) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_DeleteObject{DeleteObject: &raftlogv1.DeleteObject{Kind: kind, Name: name}}}
}

func newID() string { return strings.ToLower(rand.Text()) }

func notFound(kind, name string) error {
	return errs.New(errs.NotFound, "cannot find %s %q", kind, name)
}
