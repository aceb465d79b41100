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
}

func (r *recorder) Start(_ context.Context, name string) error {
	r.started <- name
	return nil
}

func (r *recorder) Restart(_ context.Context, name string) error {
	r.restarted <- name
	return nil
}

// timers never fire.
type timers struct{}

func (timers) Arm(context.Context, string, time.Duration, []string) error { return nil }
func (timers) Disarm(context.Context, string) error                       { return nil }
