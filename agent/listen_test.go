package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// TestListenerOfAMachineThatMoves: what listens at the address before is not what a change is confirmed by.
func TestListenerOfAMachineThatMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener("x", nil)
		waits := func() time.Duration {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			begin := time.Now()
			l.wait(ctx)
			return time.Since(begin)
		}
		here, there := &agentv1.MachineComponent{Address: "10.0.0.1"}, &agentv1.MachineComponent{Address: "10.0.0.2"}
		if took := waits(); took != 5*time.Second {
			t.Errorf("before there is a machine: %s", took)
		}
		l.move(here)
		time.AfterFunc(time.Second, func() { l.began("10.0.0.1") })
		if took := waits(); took != time.Second {
			t.Errorf("until it listens: %s", took)
		}
		l.move(there)
		time.AfterFunc(time.Second, l.ended)
		time.AfterFunc(2*time.Second, func() { l.began("10.0.0.2") })
		if took := waits(); took != 2*time.Second {
			t.Errorf("after it moved: %s", took)
		}
		l.move(here)
		l.move(there) // and back, before anything was done about it
		if took := waits(); took != 0 {
			t.Errorf("moved there and back: %s", took)
		}
	})
}
