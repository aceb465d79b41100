package agent

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/agent/confirm"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/upgrade"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// listenTimeout is how long a change waits for the port that it is confirmed by.
const listenTimeout = 5 * time.Second

// watchdogSlack is what a watchdog of the service manager has before the agent does its work.
const watchdogSlack = 30 * time.Second

// upgradeResource is what an upgrade is called among changes.
const upgradeResource = "agent/upgrade"

// confirmer makes what guards changes that can cut the machine off.
func (a *Agent) confirmer(boot string) (converge.Confirmer, error) {
	listening := func(ctx context.Context) {
		if a.config.Parts.Confirm == nil {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, listenTimeout)
		defer cancel()
		a.confirming.wait(ctx)
	}
	return confirm.New(confirm.Config{
		Host: a.config.Host, Dialer: a.link, Timers: a.config.Parts.Timers, Linked: a.link.Linked, Listening: listening,
		MachineID: a.identity.MachineID(), Within: a.config.Parts.ConfirmWithin, Undo: []string{upgrade.Program, "undo", "change"}, Logger: a.config.Logger,
	})
}

// running is the base name of this process's program; empty where that is not one of those that upgrades keep.
func running() string {
	path, err := os.Executable()
	if err != nil || filepath.Dir(path) != filepath.Dir(upgrade.Program) || path == upgrade.Program {
		return ""
	}
	return filepath.Base(path)
}

// recover ends what another process of this agent left half done, before anything converges.
func (a *Agent) recover(ctx context.Context) {
	if a.config.Parts.Timers == nil {
		return
	}
	undone, err := confirm.Recover(ctx, a.config.Host)
	if err != nil {
		a.config.Logger.Error("cannot undo a change that was not confirmed", "error", err)
		a.reporter.failed(err)
	} else if undone != nil {
		a.config.Logger.Warn("undid a change that was not confirmed", "resource", undone.Resource)
		a.reporter.event(&agentv1.ResourceChange{Resource: undone.Resource, At: timestamppb.Now(),
			Error: "rolled back: the agent ended before the change was confirmed"})
	}
}

// follow does what a session makes possible, and tells the servers of an upgrade that was taken back until they know.
func (a *Agent) follow(ctx context.Context) error {
	var overdue <-chan time.Time
	if a.upgrader != nil {
		// Telling takes as long as the servers want: it must not keep the next upgrade from being ended.
		var telling sync.WaitGroup
		defer telling.Wait()
		telling.Go(func() { a.tellFailed(ctx) })
		if left, ok := a.upgrader.Left(); ok {
			timer := time.NewTimer(left + watchdogSlack)
			defer timer.Stop()
			overdue = timer.C
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-overdue:
			if _, err := upgrade.Undo(ctx, a.config.Host, "it had no session with a server in time, and its watchdog was gone"); err != nil {
				a.config.Logger.Error("cannot take the upgrade back", "error", err)
			}
			continue
		case <-a.linked:
		}
		// What waited for a server need not wait any longer.
		a.runner.Retry()
		if a.upgrader == nil {
			continue
		}
		if err := a.upgrader.Connected(ctx); err != nil {
			a.config.Logger.Error("cannot end the upgrade", "error", err)
		}
	}
}

// tellFailed tells the servers of an upgrade that was taken back.
func (a *Agent) tellFailed(ctx context.Context) {
	why, at := a.upgrader.Failed()
	if why == "" {
		return
	}
	a.config.Logger.Warn("the upgrade was taken back", "reason", why)
	a.reporter.event(&agentv1.ResourceChange{Resource: upgradeResource, At: timestamppb.New(at), Error: clip(why)})
	if a.outbox.Flush(ctx) != nil {
		return
	}
	if err := a.upgrader.Told(); err != nil {
		a.config.Logger.Warn("cannot forget the failed upgrade", "error", err)
	}
}

// watch has events checked.
func (a *Agent) watch(ctx context.Context) error {
	if a.watcher == nil {
		return nil
	}
	return a.watcher.Run(ctx)
}

// Undo takes back what is not confirmed on a machine: a change, an upgrade, or both where what is empty; or, with boot, an
// upgrade that a boot has cut short. Watchdogs call it.
// It reports what was undone.
func Undo(ctx context.Context, h *host.Host, what string) (undone []string, err error) {
	switch what {
	case "", "change", "upgrade":
	case "boot":
		boot, err := bootID(*h)
		if err != nil {
			return nil, err
		}
		if was, err := upgrade.Booted(h, boot); was || err != nil {
			return []string{upgradeResource}, err
		}
		return nil, nil
	default:
		return nil, errs.New(errs.Invalid, "cannot undo %q: it is change, upgrade or boot", what)
	}
	if what != "upgrade" {
		p, err := confirm.Undo(ctx, h, "not confirmed in time: the agent is dead, hangs, or reaches no server")
		if p != nil {
			undone = append(undone, p.Resource)
		}
		if err != nil {
			return undone, err
		}
	}
	if what != "change" {
		was, err := upgrade.Undo(ctx, h, "it had no session with a server in time")
		if was {
			undone = append(undone, upgradeResource)
		}
		return undone, err
	}
	return undone, nil
}
