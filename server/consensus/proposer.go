package consensus

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
)

// Bounds of proposing.
const (
	// maxBatch requests or maxBatchBytes go into one log entry; a larger request goes alone.
	maxBatch      = fsm.MaxRequests
	maxBatchBytes = 1 << 20
	// maxRequestBytes bounds one request. What is larger is refused.
	maxRequestBytes = 8 << 20
	// maxInFlight entries are on their way at once; requests that arrive meanwhile fill the next entry.
	maxInFlight = 4
	// maxQueued proposals and maxQueuedBytes wait for an entry; more are refused with Exhausted.
	maxQueued      = 8192
	maxQueuedBytes = 64 << 20
	// enqueueTimeout is how long Raft may take to accept an entry.
	enqueueTimeout = 5 * time.Second
)

// proposal is the requests of one caller. They go into one entry.
type proposal struct {
	ctx      context.Context
	requests []*raftlogv1.Request
	size     int
	done     chan outcome
}

type outcome struct {
	results []fsm.Result
	err     error
}

// proposer batches what this member proposes as the leader.
type proposer struct {
	node   *Node
	queue  chan *proposal
	queued atomic.Int64
	slots  chan struct{}
}

func newProposer(n *Node) *proposer {
	return &proposer{node: n, queue: make(chan *proposal, maxQueued), slots: make(chan struct{}, maxInFlight)}
}

// submit commits the requests as the leader and returns their results. Its error is Raft's, or of a kind.
func (p *proposer) submit(ctx context.Context, requests []*raftlogv1.Request) ([]fsm.Result, error) {
	mine := &proposal{ctx: ctx, requests: requests, done: make(chan outcome, 1)}
	for _, r := range requests {
		mine.size += proto.Size(r) + 8
	}
	if p.queued.Add(int64(mine.size)) > maxQueuedBytes {
		p.queued.Add(-int64(mine.size))
		return nil, errBusy()
	}
	select {
	case p.queue <- mine:
	default:
		p.queued.Add(-int64(mine.size))
		return nil, errBusy()
	}
	select {
	case o := <-mine.done:
		return o.results, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.node.ctx.Done():
		return nil, raft.ErrRaftShutdown
	}
}

func errBusy() *errs.Error {
	return errs.New(errs.Exhausted, "the leader has too many writes waiting").WithHint("try again later, or with fewer writes at once")
}

// run fills entries until the node closes. While all slots are taken the queue fills, so entries grow with the load.
func (p *proposer) run() {
	var next *proposal
	for {
		if next == nil {
			select {
			case <-p.node.ctx.Done():
				return
			case next = <-p.queue:
			}
		}
		select {
		case <-p.node.ctx.Done():
			return
		case p.slots <- struct{}{}:
		}
		var batch []*proposal
		batch, next = p.fill(next)
		if len(batch) == 0 {
			<-p.slots
			continue
		}
		p.commit(batch)
	}
}

// fill takes proposals for one entry, beginning with one; the one that did not fit any more comes next.
func (p *proposer) fill(one *proposal) (batch []*proposal, next *proposal) {
	requests, size := 0, 0
	for one != nil {
		if fits := requests+len(one.requests) <= maxBatch && size+one.size <= maxBatchBytes; !fits && len(batch) > 0 {
			return batch, one
		}
		if p.queued.Add(-int64(one.size)); one.ctx.Err() == nil {
			batch = append(batch, one)
			requests, size = requests+len(one.requests), size+one.size
		}
		select {
		case one = <-p.queue:
		default:
			one = nil
		}
	}
	return batch, nil
}

// hold waits until whatever this member proposed is applied or refused, and has all else wait until it is released.
func (p *proposer) hold(ctx context.Context) (release func(), err error) {
	held := 0
	release = func() {
		for range held {
			<-p.slots
		}
	}
	for ; held < cap(p.slots); held++ {
		select {
		case p.slots <- struct{}{}:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-p.node.ctx.Done():
			err = raft.ErrRaftShutdown
		}
		release()
		return nil, err
	}
	return release, nil
}

func (p *proposer) commit(batch []*proposal) {
	// A leader that cannot write gives up, for another to take over. Where there is none it leads on, so that reads do.
	if full := p.node.storage.logs.full(); full != nil && p.node.alone() {
		<-p.slots
		answer(batch, nil, storageError{full})
		return
	}
	entry := &raftlogv1.Entry{}
	for _, b := range batch {
		entry.Requests = append(entry.Requests, b.requests...)
	}
	data, err := proto.Marshal(entry)
	if err != nil {
		<-p.slots
		answer(batch, nil, errs.New(errs.Invalid, "cannot encode the request: %w", err))
		return
	}
	future := p.node.raft.Load().ApplyLog(raft.Log{Data: data, Extensions: seal(data)}, enqueueTimeout)
	p.node.background.Go(func() {
		err := p.node.await(p.node.ctx, future)
		<-p.slots
		if failed := p.node.storage.logs.failed.Load(); err != nil && !elsewhere(err) && failed != nil {
			// Raft's cache of the log passes on the text of the error only.
			err = storageError{failed}
		}
		if err != nil {
			answer(batch, nil, err)
			return
		}
		results, _ := future.Response().([]fsm.Result)
		if len(results) != len(entry.Requests) {
			// The FSM has stopped; another leader will answer.
			err = raft.ErrRaftShutdown
		}
		answer(batch, results, err)
	})
}

func answer(batch []*proposal, results []fsm.Result, err error) {
	for _, b := range batch {
		if err != nil {
			b.done <- outcome{err: err}
			continue
		}
		b.done <- outcome{results: results[:len(b.requests):len(b.requests)]}
		results = results[len(b.requests):]
	}
}

// checkRequests refuses what must not get into the log: it could stop members.
func (n *Node) checkRequests(requests []*raftlogv1.Request) error {
	if len(requests) == 0 || len(requests) > maxBatch {
		return errs.New(errs.Invalid, "cannot propose %d requests: at least 1 and at most %d", len(requests), maxBatch)
	}
	level := max(1, n.config.Store.Read().Cluster().GetFeatureLevel())
	for _, r := range requests {
		if size := proto.Size(r); size > maxRequestBytes {
			return errs.New(errs.Exhausted, "the request is too large: %d bytes, at most %d", size, maxRequestBytes).WithHint("apply fewer objects at once")
		}
		if r.GetCommand().GetKind() == nil {
			return errs.New(errs.Unsupported, "this server does not know the command").WithHint("upgrade all servers to one version")
		}
		// The command that raises the level is let through up to what this server knows.
		asked, most := r.GetFeatureLevel(), level
		if set := r.GetCommand().GetSetFeatureLevel(); set != nil {
			asked, most = max(asked, set.GetLevel()), fsm.Level
		}
		if asked > most {
			return errs.New(errs.Unsupported, "the command needs feature level %d, the cluster is at %d", asked, level).
				WithHint("upgrade all servers, then raise the feature level")
		}
	}
	return nil
}

// storageError says that this member could not write its log. It has given up leading by then.
type storageError struct{ cause *errs.Error }

func (e storageError) Error() string { return e.cause.Message }

func (e storageError) Unwrap() error { return e.cause }

// storageFailed returns why this member could not write its log, if no other member can take over; else nil.
func (n *Node) storageFailed(err error) *errs.Error {
	var failed storageError
	if errors.As(err, &failed) && n.alone() {
		return failed.cause
	}
	return nil
}
