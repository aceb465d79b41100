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
	mainPath   = "/etc/chrony/chrony.conf"
	ownPath    = "/etc/chrony/conf.d/provisionr.conf"
	dropInPath = "/etc/systemd/system/chrony.service.d/provisionr.conf"
	unit       = "chrony.service"
	// mark is what comments out a line of the distribution.
	mark = "#provisionr# "
	// maxMain bounds what is read of chrony.conf.
	maxMain = 1 << 20
	// capSysTime is the number of CAP_SYS_TIME (capability.h).
	capSysTime = 25
)

// dropIn runs chronyd in a machine that may not set the clock. The condition and command replace those of Debian's unit.
const dropIn = `# Managed by provisionr-agent: this machine may not set the clock, so that chronyd only observes it.
[Unit]
ConditionCapability=

[Service]
ExecStart=
ExecStart=!/usr/sbin/chronyd -x $DAEMON_OPTS
`

// New returns the resource for time; none where the pool wants package chrony absent.
func New(s *desired.State, h *host.Host) []converge.Resource {
	for _, p := range s.Pool.GetPackages() {
		if p.Name == "chrony" && p.Absent {
			return nil
		}
	}
	return []converge.Resource{&chrony{host: h, servers: s.Machine.GetNtpServers()}}
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

type chrony struct {
	host    *host.Host
	servers []string
}

// Name implements converge.Resource.
func (c *chrony) Name() string { return "ntp/chrony" }

// After implements converge.Ordered: the package brings the files that are changed here; servers may be names.
func (c *chrony) After() []string { return []string{"package", "resolver"} }

// files returns chrony's files as wanted.
func (c *chrony) files() (*conffile.Set, error) {
	own := conffile.File{Path: ownPath, Content: sources(c.servers), Absent: len(c.servers) == 0}
	may, err := MaySetClock(c.host)
	if err != nil {
		return nil, err
	}
	files := []conffile.File{own, {Path: dropInPath, Content: []byte(dropIn), Absent: may}}
	now, err := conffile.Read(c.host, mainPath, maxMain)
	switch {
	case err == nil:
		files = append(files, conffile.File{Path: mainPath, Content: disable(now, len(c.servers) > 0)})
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return conffile.NewSet(c.host, "ntp", files...), nil
}

// Check implements converge.Resource.
func (c *chrony) Check(ctx context.Context) (converge.Diff, error) {
	set, err := c.files()
	if err != nil {
		return converge.Diff{}, err
	}
	d, err := set.Check()
	if err != nil {
		return converge.Diff{}, err
	}
	u, err := c.host.Units.Unit(ctx, unit)
	if err != nil {
		return converge.Diff{}, err
	}
	return converge.Diff{Text: textdiff.Join(d, state(u))}, nil
}

func state(u host.Unit) string {
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
func (c *chrony) Apply(ctx context.Context) error {
	set, err := c.files()
	if err != nil {
		return err
	}
	restarted := false
	err = set.Apply(func() error {
		if err := c.host.Units.DaemonReload(ctx); err != nil {
			return err
		}
		restarted = true
		return c.host.Units.Restart(ctx, unit)
	})
	if err != nil {
		return fmt.Errorf("cannot configure chrony: %w", err)
	}
	u, err := c.host.Units.Unit(ctx, unit)
	if err != nil {
		return err
	}
	if u.File != "enabled" {
		if err := c.host.Units.Enable(ctx, unit); err != nil {
			return err
		}
	}
	if u.Active != "active" && !restarted {
		return c.host.Units.Start(ctx, unit)
	}
	return nil
}

// sources returns our part of chrony.conf(5).
func sources(servers []string) []byte {
	var b strings.Builder
	b.WriteString("# Managed by provisionr-agent.\n")
	for _, s := range servers {
		b.WriteString("server " + s + " iburst minpoll 4 maxpoll 6\n")
	}
	// Steps when off by more than 0.1 s, in the first three updates after the start.
	b.WriteString("makestep 0.1 3\n")
	return []byte(b.String())
}

// disable comments out what contends with our part, or, with off false, takes our marks away.
func disable(now []byte, off bool) []byte {
	var b strings.Builder
	for line := range strings.Lines(string(now)) {
		rest, marked := strings.CutPrefix(line, mark)
		f := strings.Fields(rest)
		contends := len(f) > 0 && (f[0] == "pool" || f[0] == "server" || f[0] == "makestep")
		switch {
		case marked && !off, marked && !contends:
			line = rest
		case !marked && off && contends:
			line = mark + line
		}
		b.WriteString(line)
	}
	return []byte(b.String())
}
