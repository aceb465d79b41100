package ntp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

const (
	// mark is what comments out a line of the distribution.
	mark = "#provisionr# "
	// maxMain bounds what is read of chrony.conf.
	maxMain = 1 << 20
	// capSysTime is the number of CAP_SYS_TIME (capability.h).
	capSysTime = 25
)

// dropIn runs chronyd in a machine that may not set the clock. The condition and command replace those of the unit.
const dropIn = `# Managed by provisionr-agent: this machine may not set the clock, so that chronyd only observes it.
[Unit]
ConditionCapability=

[Service]
ExecStart=
ExecStart=%s
`

// New returns the resource for time. Which daemon keeps it is decided when it is looked at: packages come before it.
func New(s *desired.State, h *host.Host) []converge.Resource {
	c := &clock{host: h, servers: s.Machine.GetNtpServers(), pools: s.Machine.GetNtpPools()}
	c.wanted, c.unwanted = listed(s.Pool.GetPackages(), "chrony")
	return []converge.Resource{c}
}

// MaySetClock reports whether the machine may set its clock: whether CAP_SYS_TIME is in the bounding set of PID 1
// (proc_pid_status(5)).
func MaySetClock(h *host.Host) (bool, error) {
	status, err := conffile.Read(h, "/proc/1/status", 64<<10)
	if err != nil {
		return false, fmt.Errorf("cannot read capabilities: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if set, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			if err != nil {
				return false, fmt.Errorf("cannot read capabilities: %w", err)
			}
			return bits&(1<<capSysTime) != 0, nil
		}
	}
	return false, errors.New("cannot read capabilities: no CapBnd in /proc/1/status")
}

type clock struct {
	host             *host.Host
	servers, pools   []string
	wanted, unwanted bool
}

// Name implements converge.Resource.
func (c *clock) Name() string { return "ntp/clock" }

// After implements converge.Ordered: the package brings the files that are changed here; servers may be names.
func (c *clock) After() []string { return []string{"package", "resolver"} }

// Triggers implements converge.Triggered.
func (c *clock) Triggers() []converge.Trigger {
	var all []converge.Trigger
	for _, d := range []daemon{debianChrony, fedoraChrony, timesyncd} {
		all = append(all, converge.Trigger{Kind: converge.OnUnit, Name: d.unit}, converge.Trigger{Kind: converge.OnFile, Name: d.ownPath})
		if d.mainPath != "" {
			all = append(all, converge.Trigger{Kind: converge.OnFile, Name: d.mainPath})
		}
	}
	return all
}

// Units implements converge.Looking: most have the first.
func (c *clock) Units() []string { return []string{debianChrony.unit} }

// daemon asks which one keeps time, and how its unit is. Units that cannot change the answer are not asked for.
func (c *clock) daemon(ctx context.Context) (daemon, host.Unit, error) {
	f := facts{wanted: c.wanted, unwanted: c.unwanted}
	units := make(map[daemon]host.Unit)
	for _, ask := range []struct {
		daemon daemon
		there  *bool
	}{{debianChrony, &f.debian}, {fedoraChrony, &f.fedora}, {timesyncd, &f.timesyncd}} {
		u, err := c.host.Units.Unit(ctx, ask.daemon.unit)
		if err != nil {
			return daemon{}, host.Unit{}, err
		}
		units[ask.daemon] = u
		if *ask.there = u.Load != "not-found" && u.Load != "masked"; *ask.there && !c.unwanted {
			break
		}
	}
	f.dnf = !f.debian && conffile.Exists(c.host, "/etc/dnf/dnf.conf") && !conffile.Exists(c.host, "/var/lib/dpkg/status")
	d := choose(f)
	return d, units[d], nil
}

// files returns the daemon's files as wanted, and whether it may run: what cannot observe is of no use where it may not set.
func (c *clock) files(d daemon) (*conffile.Set, bool, error) {
	given := len(c.servers)+len(c.pools) > 0
	may, err := MaySetClock(c.host)
	if err != nil {
		return nil, false, err
	}
	if d == timesyncd {
		own := conffile.File{Path: d.ownPath, Content: timesyncdConf(c.servers, c.pools), Absent: !given}
		return conffile.NewSet(c.host, "ntp", own), may, nil
	}
	files := []conffile.File{
		{Path: d.ownPath, Content: sources(c.servers, c.pools), Absent: !given},
		{Path: d.dropInPath, Content: fmt.Appendf(nil, dropIn, d.command), Absent: may},
	}
	now, err := conffile.Read(c.host, d.mainPath, maxMain)
	switch {
	case err == nil:
		files = append(files, conffile.File{Path: d.mainPath, Content: disable(now, given, d.include)})
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, err
	}
	return conffile.NewSet(c.host, "ntp", files...), true, nil
}

// Check implements converge.Resource.
func (c *clock) Check(ctx context.Context) (converge.Diff, error) {
	d, u, err := c.daemon(ctx)
	if err != nil || d == (daemon{}) {
		return converge.Diff{}, err
	}
	set, runs, err := c.files(d)
	if err != nil {
		return converge.Diff{}, err
	}
	diff, err := set.Check()
	if err != nil {
		return converge.Diff{}, err
	}
	if !runs {
		return converge.Diff{Text: diff}, nil
	}
	return converge.Diff{Text: textdiff.Join(diff, state(d.unit, u))}, nil
}

func state(unit string, u host.Unit) string {
	switch {
	case u.Load == "not-found":
		return unit + ": not installed"
	case u.Active != "active":
		return unit + " is " + u.Active + ", wanted active"
	case u.File != "enabled":
		return unit + " is " + u.File + ", wanted enabled"
	}
	return ""
}

// Apply implements converge.Resource.
func (c *clock) Apply(ctx context.Context) error {
	d, _, err := c.daemon(ctx)
	if err != nil || d == (daemon{}) {
		return err
	}
	set, runs, err := c.files(d)
	if err != nil {
		return err
	}
	restarted := false
	err = set.Apply(func() error {
		if err := c.host.Units.DaemonReload(ctx); err != nil || !runs {
			return err
		}
		restarted = true
		return c.host.Units.Restart(ctx, d.unit)
	})
	if err != nil {
		return fmt.Errorf("cannot configure %s: %w", d.name, err)
	}
	if !runs {
		return nil
	}
	u, err := c.host.Units.Unit(ctx, d.unit)
	if err != nil {
		return err
	}
	if u.File != "enabled" {
		if err := c.host.Units.Enable(ctx, d.unit); err != nil {
			return err
		}
	}
	if u.Active != "active" && !restarted {
		return c.host.Units.Start(ctx, d.unit)
	}
	return nil
}
