package agent

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/link"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// slow is how long a resource is worked at before the servers are told so.
	slow = 500 * time.Millisecond
	// maxSkew is how far the clock may be from the servers' before the report says so. It is far above what a proof of the
	// clock allows: it is for clocks that break certificates.
	maxSkew = 30 * time.Second
)

// reporter turns runs and proofs into reports. It tells only what changed.
type reporter struct {
	version string
	send    func(*agentv1.Report)
	skew    func() time.Duration

	mu     sync.Mutex
	status *agentv1.Report
	// busy fires when a resource takes long.
	busy *time.Timer
	// proofs are the outcomes as they were last put into the outbox, by machine and assumption.
	proofs map[string]*agentv1.Proof
	// whole says that the next set is to be reported whole.
	whole bool
	// facts are the newest; untold says that the next report takes them along.
	facts  *agentv1.Facts
	untold bool
}

func newReporter(version string, outbox *link.Outbox, skew func() time.Duration) *reporter {
	return &reporter{version: version, send: outbox.Put, skew: skew, status: &agentv1.Report{AgentVersion: version}, proofs: make(map[string]*agentv1.Proof)}
}

// now notes that a resource is being changed.
func (r *reporter) now(resource string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopBusy()
	var own *time.Timer
	own = time.AfterFunc(slow, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.busy != own {
			return // stopped after it had fired: what was slow is done
		}
		next := proto.CloneOf(r.status)
		next.Converged, next.Message = false, "changing "+resource
		r.put(next, nil, nil)
	})
	r.busy = own
}

func (r *reporter) stopBusy() {
	if r.busy != nil {
		r.busy.Stop()
		r.busy = nil
	}
}

// done notes a finished run.
func (r *reporter) done(report converge.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopBusy()
	next := &agentv1.Report{AgentVersion: r.version, Converged: true}
	if s, ok := report.Epoch.(*desired.State); ok {
		next.DesiredHash, next.PoolGeneration = s.Hash, s.PoolGeneration
	}
	skew := r.skew()
	if err := report.Run.Err(); err != nil {
		next.Converged, next.Message = false, clip(err.Error())
	} else if skew.Abs() > maxSkew {
		next.Message = describe(skew)
	}
	r.put(next, nil, report.Changes)
}

// failed notes a desired state that cannot be run.
func (r *reporter) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := proto.CloneOf(r.status)
	next.Converged, next.Message = false, clip(err.Error())
	r.put(next, nil, nil)
}

// connected notes that a session began. The servers may know less than they acknowledged, as after a restore, so that the next
// set of proofs is told whole.
func (r *reporter) connected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.whole = true
}

// proven notes a whole set of proofs, and reports those that changed, or all. One that is no longer made, as about a peer
// that is gone, is reported without a state, which removes it.
func (r *reporter) proven(set []*agentv1.Proof, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, r.whole = all || r.whole, false
	known := make(map[string]*agentv1.Proof, len(set))
	var changed []*agentv1.Proof
	for _, p := range set {
		key := p.Machine + " " + p.Assumption
		if known[key] = p; all || !proto.Equal(r.proofs[key], p) {
			changed = append(changed, p)
		}
	}
	for key, p := range r.proofs {
		if known[key] == nil {
			changed = append(changed, &agentv1.Proof{Machine: p.Machine, Assumption: p.Assumption})
		}
	}
	r.proofs = known
	r.put(r.status, changed, nil)
}

// event reports something that no run did.
func (r *reporter) event(c *agentv1.ResourceChange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(r.status, nil, []*agentv1.ResourceChange{c})
}

// learned notes facts, and reports them where they are new, or anyway. Before the first run has ended they wait for it: a
// report that knows nothing else would say that the machine is not as desired.
func (r *reporter) learned(f *agentv1.Facts, anyway bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !anyway && proto.Equal(f, r.facts) {
		return
	}
	r.facts, r.untold = f, true
	if r.status.DesiredHash != nil {
		r.put(r.status, nil, nil)
	}
}

// put sends what is new, if anything is. The caller holds the lock.
func (r *reporter) put(next *agentv1.Report, proofs []*agentv1.Proof, changes []*agentv1.ResourceChange) {
	if len(proofs) == 0 && len(changes) == 0 && !r.untold && proto.Equal(next, r.status) {
		return
	}
	r.status = next
	out := proto.CloneOf(next)
	out.Proofs, out.Changes = proofs, changes
	if r.untold {
		out.Facts, r.untold = r.facts, false
	}
	r.send(out)
}

func describe(skew time.Duration) string {
	side := "ahead of"
	if skew < 0 {
		side = "behind"
	}
	return fmt.Sprintf("the machine's clock is %s %s the servers'", skew.Abs().Round(time.Second), side)
}

// clip bounds a status message and makes it valid UTF-8, which it may not be, where a program's words are in it, or become by
// the cut: the encoding of a report refuses anything else.
func clip(s string) string {
	const most = 1 << 10
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
