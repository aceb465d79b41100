package host

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// jobTimeout bounds a start, stop or restart. It is above systemd's own DefaultTimeoutStartSec of 90 s
// (systemd-system.conf(5)), so that systemd's reason is seen before ours.
const jobTimeout = 3 * time.Minute

// Systemd is the real service manager, over the system bus or, where there is none, systemd's private socket.
// The connection is made when it is first needed and made again when it broke. Safe for several goroutines.
type Systemd struct {
	host  Host
	ahead ahead

	mu   sync.Mutex
	conn *dbus.Conn
}

// NewSystemd returns the service manager of the machine; files and commands of h serve the units that systemd generated
// from SysV init scripts, which it cannot enable itself.
func NewSystemd(h Host) *Systemd { return &Systemd{host: h} }

// Close ends the connection. A later call connects again.
func (s *Systemd) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// connect forgets what was asked ahead: it may be about to change.
func (s *Systemd) connect(ctx context.Context) (*dbus.Conn, error) {
	s.ahead.ask(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.Connected() {
		return s.conn, nil
	}
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
	// The connection outlives the call that made it, and the library closes it when its context ends.
	conn, err := dbus.NewWithContext(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("cannot connect to systemd: %w", err)
	}
	s.conn = conn
	return conn, nil
}

// Ahead implements Units.
func (s *Systemd) Ahead(names ...string) { s.ahead.ask(names) }

// Unit implements Units.
func (s *Systemd) Unit(ctx context.Context, name string) (Unit, error) {
	u, ok := s.ahead.take(name)
	if !ok {
		var err error
		if u, err = askUnit(name); err != nil {
			return s.unit(ctx, name)
		}
	}
	if u.Load == "not-found" {
		return Unit{Load: u.Load, Active: u.Active, Sub: u.Sub}, nil
	}
	u.File = s.fileState(name, u.File)
	if u.Active != "active" {
		u.MainPID = 0
	}
	return u, nil
}

// fileState says of a unit that systemd generated from an init script what systemctl would.
func (s *Systemd) fileState(name, state string) string {
	if script := initScript(name); state == "generated" && s.exists("/etc/init.d/"+script) {
		state = "disabled"
		if s.exists("/etc/rc[2345].d/S??" + script) {
			state = "enabled"
		}
	}
	return state
}

// unit is Unit by way of the bus.
func (s *Systemd) unit(ctx context.Context, name string) (Unit, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return Unit{}, err
	}
	states, err := conn.ListUnitsByNamesContext(ctx, []string{name})
	if err != nil {
		return Unit{}, fmt.Errorf("cannot get state of unit %s: %w", name, err)
	}
	if len(states) != 1 {
		return Unit{}, fmt.Errorf("cannot get state of unit %s: systemd answered %d units", name, len(states))
	}
	u := Unit{Load: states[0].LoadState, Active: states[0].ActiveState, Sub: states[0].SubState}
	if u.Load == "not-found" {
		return u, nil
	}
	file, err := conn.GetUnitPropertyContext(ctx, name, "UnitFileState")
	if err != nil {
		return Unit{}, fmt.Errorf("cannot get file state of unit %s: %w", name, err)
	}
	u.File, _ = file.Value.Value().(string)
	u.File = s.fileState(name, u.File)
	if u.Active != "active" || !isService(name) {
		return u, nil
	}
	pid, err := conn.GetServicePropertyContext(ctx, name, "MainPID")
	if err != nil {
		return Unit{}, fmt.Errorf("cannot get main process of unit %s: %w", name, err)
	}
	if n, ok := pid.Value.Value().(uint32); ok {
		u.MainPID = int(n)
	}
	return u, nil
}

// Start implements Units.
func (s *Systemd) Start(ctx context.Context, name string) error {
	return s.job(ctx, "start", name, (*dbus.Conn).StartUnitContext)
}

// Stop implements Units.
func (s *Systemd) Stop(ctx context.Context, name string) error {
	return s.job(ctx, "stop", name, (*dbus.Conn).StopUnitContext)
}

// Restart implements Units.
func (s *Systemd) Restart(ctx context.Context, name string) error {
	return s.job(ctx, "restart", name, (*dbus.Conn).RestartUnitContext)
}

// ReloadOrRestart implements Units.
func (s *Systemd) ReloadOrRestart(ctx context.Context, name string) error {
	return s.job(ctx, "reload or restart", name, (*dbus.Conn).ReloadOrRestartUnitContext)
}

type jobFunc func(c *dbus.Conn, ctx context.Context, name, mode string, done chan<- string) (int, error)

func (s *Systemd) job(ctx context.Context, verb, name string, f jobFunc) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, jobTimeout, fmt.Errorf("job not done within %s", jobTimeout))
	defer cancel()
	done := make(chan string, 1)
	if _, err := f(conn, ctx, name, "replace", done); err != nil {
		return fmt.Errorf("cannot %s unit %s: %w", verb, name, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("cannot %s unit %s: systemd says %s; see journalctl -u %s", verb, name, result, name)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot %s unit %s: %w", verb, name, context.Cause(ctx))
	}
}

// Enable implements Units.
func (s *Systemd) Enable(ctx context.Context, name string) error {
	if done, err := s.initScript(ctx, "enable", name); done {
		return err
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if _, _, err := conn.EnableUnitFilesContext(ctx, []string{name}, false, false); err != nil {
		return fmt.Errorf("cannot enable unit %s: %w", name, err)
	}
	return s.DaemonReload(ctx)
}

// Disable implements Units.
func (s *Systemd) Disable(ctx context.Context, name string) error {
	if done, err := s.initScript(ctx, "disable", name); done {
		return err
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if _, err := conn.DisableUnitFilesContext(ctx, []string{name}, false); err != nil {
		return fmt.Errorf("cannot disable unit %s: %w", name, err)
	}
	return s.DaemonReload(ctx)
}

// Mask implements Units.
func (s *Systemd) Mask(ctx context.Context, name string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if _, err := conn.MaskUnitFilesContext(ctx, []string{name}, false, false); err != nil {
		return fmt.Errorf("cannot mask unit %s: %w", name, err)
	}
	return s.DaemonReload(ctx)
}

// Unmask implements Units.
func (s *Systemd) Unmask(ctx context.Context, name string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if _, err := conn.UnmaskUnitFilesContext(ctx, []string{name}, false); err != nil {
		return fmt.Errorf("cannot unmask unit %s: %w", name, err)
	}
	return s.DaemonReload(ctx)
}

// DaemonReload implements Units.
func (s *Systemd) DaemonReload(ctx context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if err := conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("cannot reload the unit files: %w", err)
	}
	return nil
}

// initScript enables or disables a unit that systemd-sysv-generator(8) made, as systemctl does.
func (s *Systemd) initScript(ctx context.Context, verb, name string) (bool, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return true, err
	}
	file, err := conn.GetUnitPropertyContext(ctx, name, "UnitFileState")
	if err != nil || file.Value.Value() != "generated" || !s.exists("/etc/init.d/"+initScript(name)) {
		return false, nil
	}
	r, err := s.host.Commands.Run(ctx, Command{Path: "/lib/systemd/systemd-sysv-install", Args: []string{verb, initScript(name)}})
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("exit %d: %s", r.Exit, strings.TrimSpace(string(r.Stderr)))
	}
	if err != nil {
		return true, fmt.Errorf("cannot %s unit %s: %w", verb, name, err)
	}
	return true, s.DaemonReload(ctx)
}

// exists reports whether anything matches a pattern of filepath.Match below the root.
func (s *Systemd) exists(pattern string) bool {
	found, err := filepath.Glob(filepath.Join(s.host.Root, pattern))
	return err == nil && len(found) > 0
}

func initScript(unit string) string { return strings.TrimSuffix(unit, ".service") }
