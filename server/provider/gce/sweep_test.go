package gce_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/provisionr/provisionr/server/provider/gce/gcetest"
)

// TestSlowSweep has a list look for disks at an API that does not answer: a machine's end must not wait for that.
func TestSlowSweep(t *testing.T) {
	h := newHarness(t, gcetest.Config{})
	var asked atomic.Bool
	began := make(chan struct{})
	h.SetFault(func(c gcetest.Call) (f gcetest.Fault) {
		if strings.Contains(c.Method, "disks") && asked.CompareAndSwap(false, true) {
			close(began)
			f.Delay = time.Hour
		}
		return f
	})
	p := h.new(t, "c-sweep", true)
	ctx, cancel := context.WithCancel(t.Context())
	listed := make(chan struct{})
	go func() {
		defer close(listed)
		for range p.List(ctx) {
		}
	}()
	<-began
	ended := make(chan error, 1)
	go func() { ended <- p.Terminate(t.Context(), "m-0123456789abcdef", "") }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the machine's end waits for the list")
	}
	cancel()
	<-listed
}
