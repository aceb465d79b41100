package reconciletest

import (
	"context"
	"fmt"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Reboots is how the machines of a world boot again.
type Reboots struct {
	// Required says why a machine must boot again, after so many boots beside the first; "" where it need not.
	Required func(slot string, boots int) string
	// Ignored says that a machine says yes to a reboot and does not do it. Nil means none.
	Ignored func(slot string) bool
	// Takes is how long a machine is away.
	Takes time.Duration
}

// SetReboots sets how machines boot again. Before, none must.
func (w *World) SetReboots(r Reboots) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reboots = r
}

// Boots returns how often a machine has booted beside the first time.
func (w *World) Boots(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.boots[id]
}

// Ask implements reconcile.Agents for every server: it knows reboots.
func (w *World) Ask(_ context.Context, id string, ask *agentv1.Ask) (*agentv1.Answer, error) {
	if connected, _ := w.Connected(); !connected[id] {
		return nil, errs.New(errs.Unavailable, "machine %s has no session", id)
	}
	slot := w.Read().Machine(id).GetSpec().GetSlot()
	if ask.GetReboot().GetBootId() != w.bootID(id) {
		return nil, errs.New(errs.Conflict, "%s has booted since", slot)
	}
	w.mu.Lock()
	ignored := w.reboots.Ignored != nil && w.reboots.Ignored(slot)
	w.mu.Unlock()
	if !ignored {
		w.Bounce(id)
	}
	return &agentv1.Answer{}, nil
}

// Bounce boots a machine again.
func (w *World) Bounce(id string) {
	w.mu.Lock()
	w.boots[id]++
	w.back[id] = time.Now().Add(w.reboots.Takes)
	w.mu.Unlock()
	w.Connect(id, false)
}

// away says that a machine boots again just now.
func (w *World) away(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Before(w.back[id])
}

func (w *World) bootID(id string) string { return fmt.Sprintf("boot-%d", w.Boots(id)) }

// rebootRequired is what the machine says of it.
func (w *World) rebootRequired(id, slot string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reboots.Required == nil {
		return ""
	}
	return w.reboots.Required(slot, w.boots[id])
}
