package link

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// reportChanges and reportProofs bound one message: with diffs of at most 4 KiB it stays below 1 MiB.
	reportChanges = 64
	reportProofs  = 512
	// maxChanges and maxProofs bound what waits to be reported; the oldest is dropped beyond. A proof replaces an older
	// one of the same assumption about the same machine.
	maxChanges = 256
	maxProofs  = 4096
)

// Outbox holds what the servers are yet to know. One report is under way at a time; what comes meanwhile is merged into the
// next one: the newest status and facts, the newest outcome of each proof, and the last changes. A report that was not acknowledged
// when its session ended is merged with what came after it. Safe for several goroutines.
type Outbox struct {
	ready chan struct{}

	mu sync.Mutex
	// status is the newest; it goes with every report.
	status *agentv1.Report
	// next is what goes out next, nil if there is nothing; underway waits for its acknowledgement.
	next, underway *agentv1.Report
	sequence       uint64
	// put counts calls of Put; nextPut and underwayPut are the counts that the two reports include, ackedPut what was acknowledged.
	put, underwayPut, ackedPut uint64
	acked                      chan struct{}
}

// NewOutbox returns an empty outbox.
func NewOutbox() *Outbox {
	return &Outbox{ready: make(chan struct{}, 1), acked: make(chan struct{})}
}

// Put merges a report into what is to be sent. Its status replaces the older one. Its sequence is ignored.
func (o *Outbox) Put(r *agentv1.Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.put++
	o.status = &agentv1.Report{
		DesiredHash: r.DesiredHash, PoolGeneration: r.PoolGeneration, Converged: r.Converged, Message: r.Message, AgentVersion: r.AgentVersion,
	}
	o.next = merge(o.next, r)
	o.signal()
}

// merge returns a report with all that older and newer tell; older may be nil.
func merge(older, newer *agentv1.Report) *agentv1.Report {
	m := proto.CloneOf(newer)
	if older == nil {
		return m
	}
	seen := make(map[string]bool, len(m.Proofs))
	for _, p := range m.Proofs {
		seen[p.Machine+" "+p.Assumption] = true
	}
	var proofs []*agentv1.Proof
	for _, p := range older.Proofs {
		if !seen[p.Machine+" "+p.Assumption] {
			proofs = append(proofs, p)
		}
	}
	m.Proofs = last(append(proofs, m.Proofs...), maxProofs)
	m.Changes = last(append(slices.Clip(older.Changes), m.Changes...), maxChanges)
	if m.Facts == nil {
		m.Facts = older.Facts
	}
	return m
}

func last[T any](s []T, n int) []T { return s[max(0, len(s)-n):] }

func (o *Outbox) signal() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

// restart begins a session: what was under way is to be sent again, and the status at least, for the servers may know less
// than they acknowledged to an earlier session.
func (o *Outbox) restart() {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.underway != nil && o.next != nil:
		o.next = merge(o.underway, o.next)
	case o.underway != nil:
		o.next = o.underway
	case o.next == nil && o.status != nil:
		o.next = proto.CloneOf(o.status)
	}
	o.underway = nil
	if o.next != nil {
		o.signal()
	}
}

// take returns the report to be sent now, or nil.
func (o *Outbox) take() *agentv1.Report {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.underway != nil || o.next == nil {
		return nil
	}
	o.sequence++
	o.underway, o.next = split(o.next)
	if o.next == nil {
		o.underwayPut = o.put
	}
	o.underway.Sequence = o.sequence
	return o.underway
}

// split returns what of a report goes into one message, oldest first, and the rest or nil.
func split(r *agentv1.Report) (first, rest *agentv1.Report) {
	if len(r.Changes) <= reportChanges && len(r.Proofs) <= reportProofs {
		return r, nil
	}
	first, rest = proto.CloneOf(r), r
	c, p := min(len(r.Changes), reportChanges), min(len(r.Proofs), reportProofs)
	first.Changes, first.Proofs = first.Changes[:c], first.Proofs[:p]
	rest.Changes, rest.Proofs = rest.Changes[c:], rest.Proofs[p:]
	return first, rest
}

// ack notes that a server has the report for good.
func (o *Outbox) ack(sequence uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.underway == nil || o.underway.Sequence != sequence {
		return
	}
	o.underway, o.ackedPut = nil, o.underwayPut
	close(o.acked)
	o.acked = make(chan struct{})
	if o.next != nil {
		o.signal()
	}
}

// Flush waits until everything that was put before is acknowledged.
func (o *Outbox) Flush(ctx context.Context) error {
	o.mu.Lock()
	want := o.put
	o.mu.Unlock()
	for {
		o.mu.Lock()
		done, acked := o.ackedPut >= want, o.acked
		o.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-acked:
		}
	}
}
