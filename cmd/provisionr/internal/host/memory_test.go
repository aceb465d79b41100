package host

import (
	"testing"
	"time"
)

// TestResidue: memory is given back once much was allocated and then little, and not again soon.
func TestResidue(t *testing.T) {
	const mib = 1 << 20
	var r residue
	now := time.Unix(0, 0)
	for i, step := range []struct {
		after            time.Duration
		allocated, alive uint64
		want             bool
	}{
		{time.Second, 10 * mib, 4 * mib, false},   // a start
		{time.Second, 10 * mib, 4 * mib, false},   // of which too little is left
		{time.Second, 100 * mib, 40 * mib, false}, // names, still coming
		{time.Second, 101 * mib, 40 * mib, false},
		{time.Second, 101*mib + calm, 40 * mib, true},
		{time.Second, 101*mib + calm, 40 * mib, false},
		{time.Second, 300 * mib, 40 * mib, false},
		{time.Second, 300 * mib, 40 * mib, false}, // too soon
		{pause, 300 * mib, 300 * mib, false},      // most of it is alive
		{time.Second, 300 * mib, 40 * mib, true},
		{pause, 300*mib + calm, 40 * mib, false}, // nothing happens
	} {
		now = now.Add(step.after)
		if got := r.worth(now, step.allocated, step.alive); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
