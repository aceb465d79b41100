package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestLate: zones are published when the state has caught up, else after a while, and not at all when the member ends.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, after := range []time.Duration{0, time.Second, time.Hour} {
			caughtUp := make(chan struct{})
			time.AfterFunc(after, func() { close(caughtUp) })
			begin := time.Now()
			var ran time.Duration
			run := (&resolution{caughtUp: caughtUp}).late(func(context.Context) error {
				ran = time.Since(begin)
				return nil
			})
			if err := run(t.Context()); err != nil || ran != min(after, catchUp) {
				t.Errorf("published after %s, the state was there after %s: %v", ran, after, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		run := (&resolution{caughtUp: make(chan struct{})}).late(func(context.Context) error {
			t.Error("published after the end")
			return nil
		})
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	})
}
