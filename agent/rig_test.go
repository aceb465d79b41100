package agent_test

import (
	"context"
	"time"

	"github.com/provisionr/provisionr/agent/host"
)

// recorder tells which units were started.
type recorder struct {
	host.Units
	started, restarted chan string
	restarts           int
}

func (r *recorder) Start(_ context.Context, name string) error {
	r.started <- name
	return nil
}

// Restart ends, the first time, as that of the agent's own unit does: with the agent.
func (r *recorder) Restart(ctx context.Context, name string) error {
	r.restarted <- name
	if r.restarts++; r.restarts > 1 {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// timers never fire.
type timers struct{}

func (timers) Arm(context.Context, string, time.Duration, []string) error { return nil }
func (timers) Disarm(context.Context, string) error                       { return nil }
