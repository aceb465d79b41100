package hosttest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/provisionr/provisionr/agent/host"
)

// Units is a service manager in memory. The zero value has no units.
type Units struct {
	mu    sync.Mutex
	units map[string]host.Unit
	fails map[string]error
	log   []string
}

// Set makes a unit exist in that state.
func (u *Units) Set(name string, unit host.Unit) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.units == nil {
		u.units = make(map[string]host.Unit)
	}
	u.units[name] = unit
}

// Fail makes an action on a unit answer err: "start nginx.service", or "daemon-reload". A nil err ends that.
func (u *Units) Fail(action string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fails == nil {
		u.fails = make(map[string]error)
	}
	u.fails[action] = err
}

// Log returns what was done, in order: "start NAME", "stop NAME", "restart NAME", "reload-or-restart NAME",
// "enable NAME", "disable NAME", "mask NAME", "unmask NAME", "daemon-reload".
func (u *Units) Log() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.log)
}

// Unit implements host.Units.
func (u *Units) Unit(_ context.Context, name string) (host.Unit, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.fails["unit "+name]; err != nil {
		return host.Unit{}, err
	}
	if unit, ok := u.units[name]; ok {
		return unit, nil
	}
	return host.Unit{Load: "not-found", Active: "inactive", Sub: "dead"}, nil
}

// Ahead implements host.Units: answers here take no time.
func (u *Units) Ahead(...string) {}

// Start implements host.Units.
func (u *Units) Start(ctx context.Context, name string) error {
	return u.change("start", name, activate)
}

// Stop implements host.Units.
func (u *Units) Stop(_ context.Context, name string) error {
	return u.change("stop", name, func(unit *host.Unit) { unit.Active, unit.Sub = "inactive", "dead" })
}

// Restart implements host.Units.
func (u *Units) Restart(_ context.Context, name string) error {
	return u.change("restart", name, activate)
}

// ReloadOrRestart implements host.Units.
func (u *Units) ReloadOrRestart(_ context.Context, name string) error {
	return u.change("reload-or-restart", name, activate)
}

// Enable implements host.Units.
func (u *Units) Enable(_ context.Context, name string) error {
	return u.change("enable", name, func(unit *host.Unit) { unit.File = "enabled" })
}

// Disable implements host.Units.
func (u *Units) Disable(_ context.Context, name string) error {
	return u.change("disable", name, func(unit *host.Unit) { unit.File = "disabled" })
}

// Mask implements host.Units.
func (u *Units) Mask(_ context.Context, name string) error {
	return u.change("mask", name, func(unit *host.Unit) { unit.Load, unit.File = "masked", "masked" })
}

// Unmask implements host.Units.
func (u *Units) Unmask(_ context.Context, name string) error {
	return u.change("unmask", name, func(unit *host.Unit) { unit.Load, unit.File = "loaded", "disabled" })
}

// DaemonReload implements host.Units.
func (u *Units) DaemonReload(context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.log = append(u.log, "daemon-reload")
	return u.fails["daemon-reload"]
}

func activate(unit *host.Unit) { unit.Active, unit.Sub = "active", "running" }

func (u *Units) change(action, name string, f func(*host.Unit)) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.log = append(u.log, action+" "+name)
	if err := u.fails[action+" "+name]; err != nil {
		return err
	}
	unit, ok := u.units[name]
	if !ok {
		return fmt.Errorf("cannot %s unit %s: not found", action, name)
	}
	f(&unit)
	u.units[name] = unit
	return nil
}
