package host

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Timers are transient timers of systemd: they outlive the process that armed them.
type Timers struct{ Host *Host }

// Arm runs a command after a time, in whole seconds. A timer of the same name is replaced.
func (t Timers) Arm(ctx context.Context, name string, after time.Duration, command []string) error {
	if err := t.Disarm(ctx, name); err != nil {
		return err
	}
	args := []string{"--quiet", "--collect", "--unit=" + name, "--on-active=" + strconv.Itoa(int(after.Seconds())), "--timer-property=AccuracySec=1s", "--"}
	r, err := t.Host.Commands.Run(ctx, Command{Path: "systemd-run", Args: append(args, command...)})
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("exit %d: %s", r.Exit, strings.TrimSpace(string(r.Stderr)))
	}
	if err != nil {
		return fmt.Errorf("cannot arm timer %s: %w", name, err)
	}
	return nil
}

// Disarm forgets a timer. One that is not there is no error.
func (t Timers) Disarm(ctx context.Context, name string) error {
	u, err := t.Host.Units.Unit(ctx, name+".timer")
	if err != nil {
		return err
	}
	if u.Load == "not-found" || u.Active == "inactive" {
		return nil
	}
	return t.Host.Units.Stop(ctx, name+".timer")
}
