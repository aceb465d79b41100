package confirm

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
)

// hooked is a change during which something else happens.
type hooked struct {
	change
	during func()
}

func (h hooked) Apply(ctx context.Context) error {
	h.during()
	return h.change.Apply(ctx)
}

// reloads answers the command of an undo, which fails for the first so many times.
func (w *world) reloads(fails int) {
	commands := w.host.Commands.(*hosttest.Commands)
	commands.On("reload", func(hosttest.Call) (host.Result, error) {
		if fails--; fails >= 0 {
			return host.Result{Exit: 1, Stderr: []byte("not now")}, nil
		}
		return host.Result{}, nil
	})
}

// TestFailedUndoIsNotForgotten: what could not be undone is undone before anything else that is guarded is changed, whose record
// would replace it.
func TestFailedUndoIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.reloads(2)
		c := w.confirmer()
		if err := c.Apply(t.Context(), change{w, "closed"}); err == nil || !strings.Contains(err.Error(), "not now") {
			t.Fatalf("error %v", err)
		}
		w.write("half changed")
		w.print = "another"
		if err := c.Apply(t.Context(), change{w, "open"}); err == nil || !strings.Contains(err.Error(), "cannot undo") || len(w.armed) != 1 {
			t.Fatalf("error %v, armed %d times", err, len(w.armed))
		}
		must(t, c.Apply(t.Context(), change{w, "open"}))
		if p, err := (records{&w.host}).pending(); p != nil || err != nil || w.content() != "open" {
			t.Errorf("pending %v, %v; %s", p, err, w.content())
		}
	})
}

// TestUndoThatNeverWorksGivesUp: it must not keep everything guarded from being made right for ever.
func TestUndoThatNeverWorksGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.reloads(1 << 30)
		c := w.confirmer()
		for range maxUndos + 1 {
			_ = c.Apply(t.Context(), change{w, "closed"})
		}
		w.print = "another"
		must(t, c.Apply(t.Context(), change{w, "open"}))
		if v, err := c.records.verdicts(); err != nil || v.Confirmed["rules/all"] == "" {
			t.Errorf("%+v, %v", v, err)
		}
	})
}

// TestWhatComesAfterTheWatchdogIsUndone: the watchdog fired while the change was being made, and found little to undo.
func TestWhatComesAfterTheWatchdogIsUndone(t *testing.T) {
	for _, to := range []string{"closed", "half"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			c := w.confirmer()
			err := c.Apply(t.Context(), hooked{change{w, to}, func() {
				if p, err := Undo(t.Context(), &w.host, "not confirmed in time"); p == nil || err != nil {
					t.Error(p, err)
				}
			}})
			if err == nil || w.content() != "open" {
				t.Errorf("error %v, the machine is %s", err, w.content())
			}
		})
	}
}

// TestVerdictThatCannotBeWritten: without it the watchdog would undo later what seems to be right.
func TestVerdictThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		at := filepath.Join(w.host.Root, confirmedPath)
		err := w.confirmer().Apply(t.Context(), hooked{change{w, "half"}, func() {
			must(t, os.MkdirAll(filepath.Join(at, "in the way"), 0o755))
		}})
		if err == nil || w.content() != "open" {
			t.Errorf("error %v, the machine is %s", err, w.content())
		}
		must(t, os.RemoveAll(at))
		if p, err := (records{&w.host}).pending(); p != nil || err != nil {
			t.Errorf("pending %v, %v", p, err)
		}
	})
}

// TestInterruptedIsTriedAgainSoon: an agent that is ended in the middle says nothing about the change.
func TestInterruptedIsTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		if err := w.confirmer().Apply(ctx, hooked{change{w, "closed"}, cancel}); err == nil || w.content() != "open" {
			t.Fatalf("error %v, the machine is %s", err, w.content())
		}
		v, err := w.confirmer().records.verdicts()
		must(t, err)
		if no := v.Rejected["rules/all"]; time.Until(no.Until) > interruptedFor || !strings.Contains(no.Why, "ended") {
			t.Errorf("%+v", no)
		}
	})
}
