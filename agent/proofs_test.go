package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// timed proves nothing until a time, and takes a second for each set.
type timed struct {
	right time.Time
	sets  int
}

func (p *timed) Own(context.Context, *desired.State) []*agentv1.Proof { return nil }

func (p *timed) Peers(context.Context, *desired.State) []*agentv1.Proof {
	p.sets++
	time.Sleep(time.Second)
	state := agentv1.ProofState_PROOF_STATE_FAILED
	if !time.Now().Before(p.right) {
		state = agentv1.ProofState_PROOF_STATE_PROVEN
	}
	return []*agentv1.Proof{proof("a", state)}
}

// What gets right is seen soon, for the time that it took; what never does costs little.
func TestProofsAreTriedAgain(t *testing.T) {
	for _, c := range []struct {
		right, most time.Duration
		sets        int
	}{
		{time.Second, 2 * time.Second, 3},
		{20 * time.Second, 5 * time.Second, 15},
		{4 * time.Minute, 32 * time.Second, 35},
		{24 * time.Hour, 63 * time.Second, 24*60 + 50},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			prover := &timed{right: time.Now().Add(c.right)}
			seen := make(chan time.Time, 1)
			p := &proofs{prover: prover, state: &atomic.Pointer[desired.State]{}, wake: make(chan struct{}, 1), done: func(set []*agentv1.Proof, _ bool) {
				if set[0].State == agentv1.ProofState_PROOF_STATE_PROVEN {
					seen <- time.Now()
				}
			}}
			p.state.Store(&desired.State{})
			go p.run(ctx)
			p.again()
			if late := (<-seen).Sub(prover.right); late > c.most || prover.sets > c.sets {
				t.Errorf("right after %s: seen %s later, in %d sets", c.right, late, prover.sets)
			}
			cancel()
			synctest.Wait()
		})
	}
}
