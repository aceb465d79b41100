package pkg

import (
	"context"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	// manDBFlag is the file without which man-db's trigger does nothing (man-db's postinst).
	manDBFlag  = "/var/lib/man-db/auto-update"
	manDBSaved = conffile.StateDir + "/man-db-put-off"
	// indexAfter is when man-db's index is brought up to date after a transaction.
	indexAfter = "--on-active=180"
)

// putOffIndex keeps the transaction from rebuilding man-db's index, which takes longer than all the rest. What it returns
// allows it again, and has a timer do it later with the processor's and the disk's idle time. The timer does not outlive a
// boot; man-db's own daily one does the same then.
func (a *apt) putOffIndex() (func(context.Context) error, error) {
	present := conffile.Exists(a.host, manDBFlag)
	if !present && !conffile.Exists(a.host, manDBSaved) {
		return func(context.Context) error { return nil }, nil
	}
	// The note comes first: after a crash in between, the flag is known to be ours to restore.
	if err := conffile.Apply(a.host, &conffile.File{Path: manDBSaved}); err != nil {
		return nil, err
	}
	before := a.statusTime()
	if err := conffile.Apply(a.host, &conffile.File{Path: manDBFlag, Absent: true}); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		if err := conffile.Apply(a.host, &conffile.File{Path: manDBFlag}); err != nil {
			return err
		}
		if conffile.Exists(a.host, "/run/systemd/system") && a.statusTime() != before {
			// A timer that waits already is as good, and one that cannot be made leaves it to the daily one.
			_, _ = a.host.Commands.Run(ctx, host.Command{Path: "systemd-run", Args: []string{
				"--quiet", "--collect", "--unit=provisionr-man-db", indexAfter, "-p", "User=man", "-p", "Nice=19",
				"-p", "CPUSchedulingPolicy=idle", "-p", "IOSchedulingClass=idle", "/usr/bin/mandb", "-pq",
			}, Timeout: 20 * time.Second})
		}
		return conffile.Apply(a.host, &conffile.File{Path: manDBSaved, Absent: true})
	}, nil
}

// statusTime tells versions of dpkg's status file apart.
func (a *apt) statusTime() time.Time {
	at, err := newest(a.host, "/var/lib/dpkg", "status", changeTime)
	if err != nil {
		return time.Time{}
	}
	return at
}
