package agent

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// provenEvery is the time between sets of proofs while all are proven, varied by a tenth.
	provenEvery = 5 * time.Minute
	// firstProof and lastProof bound the wait while one is not. In between it is an eighth of the time for which that has been
	// so: a machine that becomes right is proven with little delay, however long that took, and a pool grows as fast.
	firstProof = 500 * time.Millisecond
	lastProof  = time.Minute
	proofShare = 8
)

// Prover proves assumptions: package prove.
type Prover interface {
	// Own proves those about the machine itself, Peers those about others.
	Own(context.Context, *desired.State) []*agentv1.Proof
	Peers(context.Context, *desired.State) []*agentv1.Proof
}

// proofs has assumptions proven when there is reason to.
type proofs struct {
	prover Prover
	state  *atomic.Pointer[desired.State]
	// done is called with each whole set.
	done func(set []*agentv1.Proof, all bool)
	wake chan struct{}
	// one set is made at a time.
	mu sync.Mutex
}

// again asks for a new set soon: something may have changed.
func (p *proofs) again() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// prove makes a set and reports whether all of it is proven; with no desired state there is nothing to prove.
func (p *proofs) prove(ctx context.Context, all bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state.Load()
	if s == nil {
		return true
	}
	var own, peers []*agentv1.Proof
	var both sync.WaitGroup
	both.Go(func() { own = p.prover.Own(ctx, s) })
	both.Go(func() { peers = p.prover.Peers(ctx, s) })
	both.Wait()
	if ctx.Err() != nil {
		return false // cut short: it says nothing about the machine
	}
	set := append(own, peers...)
	p.done(set, all)
	for _, one := range set {
		if one.State != agentv1.ProofState_PROOF_STATE_PROVEN {
			return false
		}
	}
	return true
}

// run proves until ctx ends.
func (p *proofs) run(ctx context.Context) error {
	timer := time.NewTimer(provenEvery)
	defer timer.Stop()
	var since time.Time // when it was first found that not all is proven
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
			since = time.Time{}
		case <-timer.C:
		}
		next := provenEvery + rand.N(provenEvery/5) - provenEvery/10
		if p.prove(ctx, false) {
			since = time.Time{}
		} else {
			if since.IsZero() {
				since = time.Now()
			}
			next = min(max(time.Since(since)/proofShare, firstProof), lastProof)
		}
		timer.Reset(next)
	}
}
