// Package host is the agent's seam to the operating system: files below a root, commands, systemd units.
//
// Everything that the agent does to its machine goes through a Host, so that resources are table-tested on a temporary
// directory with scripted commands, and run for real in booted machines.
package host

import (
	"context"
	"io"
	"time"
)

// Host is the machine as resources see it.
type Host struct {
	// Root is the directory that all paths are below: "/" on a real machine.
	Root string
	// Commands runs programs.
	Commands Commands
	// Units is the service manager.
	Units Units
}

// Commands runs programs.
type Commands interface {
	// Run runs a command to its end. An exit code other than 0 is in Result, not an error; an error says that the
	// command could not start, was killed at its timeout, or that ctx ended. The whole process group is killed then.
	Run(ctx context.Context, c Command) (Result, error)
}

// Command is a program with its arguments; no shell is involved.
type Command struct {
	Path string
	Args []string
	// Env is added to a minimal environment (PATH, LANG=C.UTF-8).
	Env   []string
	Stdin io.Reader
	// Timeout kills the process group. Zero means 60 s.
	Timeout time.Duration
	// Unsynced keeps the command and its children from waiting for the disk, where the kernel can do that: the caller syncs.
	Unsynced bool
}

// Result is how a command ended. Output is bounded to its last 64 KiB each.
type Result struct {
	Exit   int
	Stdout []byte
	Stderr []byte
}

// Units is the part of systemd that resources need.
type Units interface {
	// Unit returns the state of a unit; a unit that does not exist has Load "not-found".
	Unit(ctx context.Context, name string) (Unit, error)
	// Ahead asks for units that are looked at in a moment, without waiting, instead of those that it was called with before.
	// Each answer serves one call of Unit, for a second at most, and none after a change by way of these Units.
	Ahead(names ...string)
	Start(ctx context.Context, name string) error
	Stop(ctx context.Context, name string) error
	Restart(ctx context.Context, name string) error
	// ReloadOrRestart reloads where the unit can, else restarts.
	ReloadOrRestart(ctx context.Context, name string) error
	// Enable and Disable change what starts at boot, and have the unit files read again.
	Enable(ctx context.Context, name string) error
	Disable(ctx context.Context, name string) error
	// Mask keeps a unit from being started at all, and Unmask allows it again. Both have the unit files read again.
	Mask(ctx context.Context, name string) error
	Unmask(ctx context.Context, name string) error
	// DaemonReload reads the unit files again.
	DaemonReload(ctx context.Context) error
}

// Unit is the state of a systemd unit in systemd's own words.
type Unit struct {
	// Load is loaded, not-found or masked; Active is active, inactive, failed, activating ...; File is enabled, disabled, static ...
	Load, Active, Sub, File string
	// MainPID is the main process of a service that is active, else 0.
	MainPID int
}
