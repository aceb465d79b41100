package link

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func proof(about string, state agentv1.ProofState) *agentv1.Proof {
	return &agentv1.Proof{Assumption: "dns.forward", Machine: about, State: state}
}

func TestOutboxMerges(t *testing.T) {
	o := NewOutbox()
	o.restart()
	if o.take() != nil {
		t.Fatal("an empty outbox has a report")
	}
	o.Put(&agentv1.Report{PoolGeneration: 1, Message: "first", Proofs: []*agentv1.Proof{proof("a", 2), proof("b", 2)}, Changes: []*agentv1.ResourceChange{{Resource: "x/1"}}})
	first := o.take()
	if first == nil || first.Sequence != 1 || o.take() != nil {
		t.Fatal("not exactly one report under way")
	}
	o.Put(&agentv1.Report{PoolGeneration: 2, Proofs: []*agentv1.Proof{proof("a", 1)}, Changes: []*agentv1.ResourceChange{{Resource: "x/2"}}})
	o.ack(99)
	if o.take() != nil {
		t.Fatal("a foreign acknowledgement was taken")
	}
	// The session breaks before the first report is acknowledged.
	o.restart()
	o.ack(1)
	want := &agentv1.Report{Sequence: 2, PoolGeneration: 2, Proofs: []*agentv1.Proof{proof("b", 2), proof("a", 1)},
		Changes: []*agentv1.ResourceChange{{Resource: "x/1"}, {Resource: "x/2"}}}
	if diff := cmp.Diff(want, o.take(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	o.ack(2)
	if o.take() != nil {
		t.Error("something is left")
	}
	// A new session is told the status at least.
	o.restart()
	if diff := cmp.Diff(&agentv1.Report{Sequence: 3, PoolGeneration: 2}, o.take(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestOutboxBounds(t *testing.T) {
	o := NewOutbox()
	for i := range 3 * maxChanges {
		o.Put(&agentv1.Report{Changes: []*agentv1.ResourceChange{{Resource: fmt.Sprint(i)}}})
	}
	var got []*agentv1.ResourceChange
	for r := o.take(); r != nil; r = o.take() {
		if len(r.Changes) > reportChanges {
			t.Fatalf("%d changes in one report", len(r.Changes))
		}
		got = append(got, r.Changes...)
		o.ack(r.Sequence)
	}
	if len(got) != maxChanges || got[0].Resource != fmt.Sprint(2*maxChanges) || got[len(got)-1].Resource != fmt.Sprint(3*maxChanges-1) {
		t.Errorf("%d changes, from %v to %v", len(got), got[0], got[len(got)-1])
	}
}

func TestFlushWaitsForAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOutbox()
		o.Put(&agentv1.Report{})
		flushed := make(chan error, 1)
		r := o.take()
		o.Put(&agentv1.Report{PoolGeneration: 2})
		go func() { flushed <- o.Flush(t.Context()) }()
		o.ack(r.Sequence)
		synctest.Wait()
		select {
		case <-flushed:
			t.Fatal("flushed before the second report was sent")
		default:
		}
		o.ack(o.take().Sequence)
		if err := <-flushed; err != nil {
			t.Error(err)
		}
		o.Put(&agentv1.Report{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if o.Flush(ctx) == nil {
			t.Error("flushed after ctx ended")
		}
	})
}

// TestOutboxLosesNothing plays random puts, breaks and acknowledgements, and checks that the servers end up with the
// newest status and the newest outcome of each proof.
func TestOutboxLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := NewOutbox()
		want, got := map[string]string{}, map[string]string{}
		var status, told uint64
		deliver := func() {
			if r := o.take(); r != nil {
				for _, p := range r.Proofs {
					got[p.Machine] = p.Found
				}
				told = r.PoolGeneration
				o.ack(r.Sequence)
			}
		}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				p := &agentv1.Proof{Assumption: "a", Machine: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "about"), Found: fmt.Sprint(i)}
				want[p.Machine] = p.Found
				status = uint64(i)
				o.Put(&agentv1.Report{PoolGeneration: status, Proofs: []*agentv1.Proof{p}})
			case 2:
				o.take() // sent and never acknowledged
				o.restart()
			case 3:
				deliver()
			}
		}
		o.restart()
		for range 3 {
			deliver()
		}
		if diff := cmp.Diff(want, got); diff != "" || told != status {
			t.Fatalf("status %d, want %d; proofs:\n%s", told, status, diff)
		}
	})
}

func TestWaitIsCapped(t *testing.T) {
	for failures := range 100 {
		d := wait(failures)
		limit := min(firstRetry<<min(max(0, failures-1), 20), lastRetry)
		if d < limit/2 || d > limit {
			t.Errorf("wait(%d) = %s, want %s to %s", failures, d, limit/2, limit)
		}
	}
}
