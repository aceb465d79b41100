package consensus

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
)

const (
	// writeTimeout and readTimeout bound calls whose context has no deadline.
	writeTimeout = 30 * time.Second
	readTimeout  = 10 * time.Second
	// retryDelay is the first pause after a refusal; it doubles up to maxRetryDelay. A change of leader ends it.
	retryDelay    = 10 * time.Millisecond
	maxRetryDelay = 250 * time.Millisecond
)

// Propose commits requests, in one log entry, through whichever member leads, and returns their results in order. It
// repeats itself after a loss of the leader, which the request ids make harmless; missing ids, times and feature levels
// are filled in. The error is Timeout where the outcome is unknown.
func (n *Node) Propose(ctx context.Context, requests ...*raftlogv1.Request) ([]fsm.Result, error) {
	for _, r := range requests {
		if r != nil {
			r.FeatureLevel = max(fsm.Needs(r.GetCommand()), r.GetFeatureLevel())
		}
	}
	if err := n.checkRequests(requests); err != nil {
		return nil, err
	}
	for _, r := range requests {
		if r.Id == "" {
			r.Id = rand.Text()
		}
		if r.Time == nil {
			r.Time = timestamppb.Now()
		}
	}
	return toLeader(ctx, n, writeTimeout, "write",
		func(ctx context.Context) ([]fsm.Result, error) { return n.proposer.submit(ctx, requests) },
		func(ctx context.Context, leader memberv1.MemberServiceClient) ([]fsm.Result, error) {
			resp, err := leader.Propose(ctx, &memberv1.ProposeRequest{Requests: requests})
			if err != nil {
				return nil, err
			}
			if len(resp.GetResults()) != len(requests) {
				return nil, errs.New(errs.Internal, "the leader answered %d results for %d requests", len(resp.GetResults()), len(requests))
			}
			return resultsFrom(resp.GetResults()), nil
		})
}

// Do commits one command for a caller and waits until the local state has it. An empty request id is filled in. It
// returns the command's own error where it was refused.
func (n *Node) Do(ctx context.Context, caller *provisionrv1.Caller, requestID string, cmd *raftlogv1.Command) (*provisionrv1.Version, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, writeTimeout)
		defer cancel()
	}
	// The write would be committed, but never arrive here.
	if err := n.canFollow(); err != nil {
		return nil, err
	}
	results, err := n.Propose(ctx, &raftlogv1.Request{Id: requestID, Caller: caller, Command: cmd})
	if err != nil {
		return nil, err
	}
	result := results[0]
	if err := n.waitVersion(ctx, result.Version); err != nil {
		return nil, err
	}
	if result.Err != nil {
		return result.Version, result.Err
	}
	return result.Version, nil
}

// ProposeLocal commits requests for another member, if this one leads.
func (n *Node) ProposeLocal(ctx context.Context, requests []*raftlogv1.Request) ([]*memberv1.Result, error) {
	if err := n.checkRequests(requests); err != nil {
		return nil, err
	}
	if n.raft.Load().State() != raft.Leader {
		return nil, n.notLeader()
	}
	results, err := n.proposer.submit(ctx, requests)
	var failed storageError
	if errors.As(err, &failed) && !n.alone() {
		return nil, errs.New(errs.Unavailable, "the leader %s gave up: %w", n.config.Name, failed).WithHint("%s", failed.cause.Hint)
	}
	if err != nil {
		return nil, raftError("write", err)
	}
	return resultsTo(results), nil
}

func resultsTo(results []fsm.Result) []*memberv1.Result {
	out := make([]*memberv1.Result, len(results))
	for i, r := range results {
		out[i] = &memberv1.Result{Version: r.Version}
		if r.Err != nil {
			out[i].ErrorKind, out[i].ErrorMessage, out[i].ErrorHint = string(r.Err.Kind), r.Err.Message, r.Err.Hint
		}
	}
	return out
}

func resultsFrom(results []*memberv1.Result) []fsm.Result {
	out := make([]fsm.Result, len(results))
	for i, r := range results {
		out[i].Version = r.GetVersion()
		if r.GetErrorKind() != "" {
			out[i].Err = &errs.Error{Kind: errs.Kind(r.GetErrorKind()), Message: r.GetErrorMessage(), Hint: r.GetErrorHint()}
		}
	}
	return out
}

// toLeader calls the leader, here or elsewhere, and the next leader after it, until one answers. A call at a leader that
// is replaced is given up at once, so that a dying leader does not hold it until its deadline. The call must be harmless
// when repeated.
func toLeader[T any](ctx context.Context, n *Node, timeout time.Duration, what string,
	here func(context.Context) (T, error), there func(context.Context, memberv1.MemberServiceClient) (T, error),
) (T, error) {
	var none T
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var tried error
	for delay := retryDelay; ; delay = min(2*delay, maxRetryDelay) {
		_, changed := n.leading.now()
		leader := n.Leader()
		if leader != "" {
			value, err := callLeader(ctx, n, leader, here, there)
			if err == nil {
				return value, nil
			}
			if full := n.storageFailed(err); full != nil {
				return none, full
			}
			if ctx.Err() == nil && !elsewhere(err) {
				return none, raftError(what, err)
			}
			tried = err
		} else if full := n.storage.logs.failed.Load(); full != nil && n.alone() {
			return none, full
		}
		wait := time.NewTimer(delay)
		select {
		case <-changed:
		case <-wait.C:
		case <-n.ctx.Done():
			wait.Stop()
			return none, errs.New(errs.Unavailable, "cannot %s: this server is stopping", what)
		case <-ctx.Done():
			wait.Stop()
			return none, n.gaveUp(ctx, what, leader, tried)
		}
		wait.Stop()
	}
}

// gaveUp says why no leader answered. Once one was asked, what it did is not known.
func (n *Node) gaveUp(ctx context.Context, what, leader string, tried error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return errs.New(errs.Canceled, "cannot %s: %w", what, ctx.Err())
	}
	if tried != nil {
		return errs.New(errs.Timeout, "cannot %s in time, and whether it was done is not known: %w", what, tried).
			WithHint("repeat it with the same request id, which is harmless")
	}
	if leader == "" {
		return n.notLeader()
	}
	return errs.New(errs.Unavailable, "cannot %s: the leader %s does not answer", what, leader)
}

// canFollow returns why this member cannot take what others commit: its disk is full. If it leads, another shall.
func (n *Node) canFollow() error {
	full := n.storage.logs.full()
	if full == nil || n.alone() {
		return nil
	}
	if r := n.raft.Load(); r.State() == raft.Leader {
		// Where nobody can take over it leads on; the next write asks again.
		_ = r.LeadershipTransfer()
	}
	return full.WithHint("free space on that disk, or ask another server; nothing was lost")
}

// alone reports whether this member is the only voter.
func (n *Node) alone() bool {
	voters := 0
	for _, s := range n.raft.Load().GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	return voters <= 1
}

// callLeader makes one call at one leader and gives it up when another leads.
func callLeader[T any](ctx context.Context, n *Node, leader string,
	here func(context.Context) (T, error), there func(context.Context, memberv1.MemberServiceClient) (T, error),
) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	defer func() { cancel(); <-watched }()
	go func() {
		defer close(watched)
		for {
			_, changed := n.leading.now()
			if now := n.Leader(); now != leader && now != "" {
				cancel()
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	value, err := func() (T, error) {
		var none T
		if leader == n.config.Name {
			return here(ctx)
		}
		conn, err := n.config.Conns.Conn(ctx, leader)
		if err != nil {
			return none, errs.New(errs.Unavailable, "cannot reach the leader %s: %w", leader, err)
		}
		value, err := there(ctx, memberv1.NewMemberServiceClient(conn))
		return value, errs.FromRPC(err)
	}()
	if err != nil && ctx.Err() != nil {
		// Given up, here or by the caller: the caller of this looks at its own context.
		err = errs.New(errs.Unavailable, "the call at the leader %s was given up: %w", leader, err)
	}
	return value, err
}
