package service

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// settleTimeout bounds the wait for a unit that was started to be active; pollEvery is between two looks at it.
	settleTimeout = 30 * time.Second
	pollEvery     = 200 * time.Millisecond
	// journalLines are shown of a unit that does not come up.
	journalLines = "8"
)

// New returns one resource that removes unit files and drop-ins of services that are no longer listed, and one for each
// service of the pool. The first comes first: what leaves may have the ports of what comes.
func New(s *desired.State, h *host.Host) []converge.Resource {
	gone := &left{host: h, listed: make(map[string]bool)}
	list := []converge.Resource{gone}
	starts := newStarts(h)
	for _, want := range s.Pool.GetServices() {
		gone.listed[want.Name] = true
		list = append(list, &service{host: h, want: want, starts: starts, watched: watched(want)})
	}
	return list
}

type service struct {
	host   *host.Host
	want   *agentv1.Service
	starts *starts
	// watched are the files whose content the unit is started with.
	watched []string
}

// Name implements converge.Resource.
func (s *service) Name() string { return "service/" + s.want.Name }

// After implements converge.Ordered.
func (s *service) After() []string {
	return []string{
		"package", "download", "file", "group", "user", "sysctl", "module", "timezone", "locale", "filesystem",
		"network", "firewall", "vpn", "hosts", "resolver", "ntp",
	}
}

// Triggers implements converge.Triggered. Files that the manifest names are those of other resources, which put them right first.
func (s *service) Triggers() []converge.Trigger {
	triggers := []converge.Trigger{{Kind: converge.OnUnit, Name: s.want.Name}}
	if s.want.Content != nil {
		triggers = append(triggers, converge.Trigger{Kind: converge.OnFile, Name: contentPath(s.want.Name)})
	}
	if s.want.Override != nil {
		triggers = append(triggers, converge.Trigger{Kind: converge.OnFile, Name: overridePath(s.want.Name)})
	}
	return triggers
}

// Units implements converge.Looking.
func (s *service) Units() []string { return []string{s.want.Name} }

// Check implements converge.Resource.
func (s *service) Check(ctx context.Context) (converge.Diff, error) {
	set, err := s.files()
	if err != nil {
		return converge.Diff{}, err
	}
	text, err := set.Check()
	if err != nil {
		return converge.Diff{}, err
	}
	u, err := s.host.Units.Unit(ctx, s.want.Name)
	if err != nil {
		return converge.Diff{}, err
	}
	diffs := append([]string{text}, s.compare(u)...)
	if s.want.Running && runs(u) {
		why, err := s.outdated(u)
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, why)
	}
	return converge.Diff{Text: textdiff.Join(diffs...)}, nil
}

// files are the unit's own files. Those that are wanted depend on what is there.
func (s *service) files() (*conffile.Set, error) {
	files, err := unitFiles(s.host, s.want)
	if err != nil {
		return nil, err
	}
	return conffile.NewSet(s.host, "unit-"+s.want.Name, files...), nil
}

// outdated says why a unit that runs must be restarted, or "".
func (s *service) outdated(u host.Unit) (string, error) {
	changed, err := s.starts.changed(s.want.Name, s.watched)
	if err != nil {
		return "", err
	}
	if len(changed) > 0 {
		return "changed since the unit started: " + strings.Join(changed, ", "), nil
	}
	gone, err := replaced(s.host, u.MainPID)
	if err != nil || gone == "" {
		return "", err
	}
	return "replaced since the unit started: " + gone, nil
}

// compare returns what differs in the unit's state.
func (s *service) compare(u host.Unit) []string {
	if missing(u) && !s.want.Masked {
		if s.want.Running || s.want.Enabled {
			return []string{"unit does not exist"}
		}
		return nil
	}
	var diffs []string
	if s.want.Masked && !masked(u) {
		diffs = append(diffs, "is "+u.File+", wanted masked")
	}
	if !s.want.Masked && masked(u) && (s.want.Running || s.want.Enabled) {
		diffs = append(diffs, "is masked, wanted not masked")
	}
	if s.want.Running && !runs(u) {
		diffs = append(diffs, "is "+u.Active+", wanted running")
	}
	if !s.want.Running && !stopped(u) {
		diffs = append(diffs, "is "+u.Active+", wanted stopped")
	}
	if s.want.Enabled && !startsAtBoot(u) && !masked(u) {
		diffs = append(diffs, "is "+u.File+", wanted enabled")
	}
	if !s.want.Enabled && canDisable(u) {
		diffs = append(diffs, "is "+u.File+", wanted not enabled")
	}
	return diffs
}

func masked(u host.Unit) bool { return u.Load == "masked" || u.File == "masked" }

func missing(u host.Unit) bool { return u.Load == "not-found" }

func runs(u host.Unit) bool { return u.Active == "active" || u.Active == "reloading" }

func stopped(u host.Unit) bool { return u.Active == "inactive" || u.Active == "failed" }

// startsAtBoot counts what cannot be enabled (static units and the like, see UnitFileState in org.freedesktop.systemd1(5))
// as fine: something else starts it. What is enabled until the next boot only, or merely linked, is not.
func startsAtBoot(u host.Unit) bool {
	return slices.Contains([]string{"enabled", "static", "alias", "indirect", "generated", "transient"}, u.File)
}

func canDisable(u host.Unit) bool { return u.File == "enabled" || u.File == "enabled-runtime" }

// Apply implements converge.Resource.
func (s *service) Apply(ctx context.Context) error {
	set, err := s.files()
	if err != nil {
		return err
	}
	if err := set.Apply(func() error { return s.host.Units.DaemonReload(ctx) }); err != nil {
		return err
	}
	u, err := s.find(ctx)
	if err != nil {
		return err
	}
	if !s.want.Running && !stopped(u) {
		if err := s.host.Units.Stop(ctx, s.want.Name); err != nil {
			return err
		}
	}
	if s.want.Masked {
		if masked(u) {
			return nil
		}
		return s.host.Units.Mask(ctx, s.want.Name)
	}
	if masked(u) && (s.want.Running || s.want.Enabled) {
		if err := s.host.Units.Unmask(ctx, s.want.Name); err != nil {
			return err
		}
		if u, err = s.find(ctx); err != nil {
			return err
		}
	}
	switch {
	case s.want.Enabled && !startsAtBoot(u) && !missing(u):
		err = s.host.Units.Enable(ctx, s.want.Name)
	case !s.want.Enabled && canDisable(u):
		err = s.host.Units.Disable(ctx, s.want.Name)
	}
	if err != nil || !s.want.Running {
		return err
	}
	return s.start(ctx, u)
}

// find returns the unit's state. A unit whose file is new is only found once systemd has read the unit files again.
func (s *service) find(ctx context.Context) (host.Unit, error) {
	u, err := s.host.Units.Unit(ctx, s.want.Name)
	if err != nil || !missing(u) {
		return u, err
	}
	if err := s.host.Units.DaemonReload(ctx); err != nil {
		return u, err
	}
	if u, err = s.host.Units.Unit(ctx, s.want.Name); err != nil {
		return u, err
	}
	if missing(u) && (s.want.Running || s.want.Enabled) {
		return u, errs.New(errs.NotFound, "cannot start %s: no such unit", s.want.Name).WithHint("list the package or file that brings it")
	}
	return u, nil
}

// start starts the unit, or restarts it if what it runs with has changed, and waits until it runs.
func (s *service) start(ctx context.Context, u host.Unit) error {
	// Hashed before the start: what changes during it is noticed by the next check.
	now, err := s.starts.hash(s.watched)
	if err != nil {
		return err
	}
	why, err := s.outdated(u)
	if err != nil {
		return err
	}
	switch {
	case !runs(u):
		err = s.host.Units.Start(ctx, s.want.Name)
	case why != "":
		// A changed unit file that another resource wrote needs to be read before.
		if slices.ContainsFunc(s.want.RestartOn, isUnitFile) {
			err = s.host.Units.DaemonReload(ctx)
		}
		if err == nil {
			err = s.host.Units.Restart(ctx, s.want.Name)
		}
	default:
		return nil
	}
	if err == nil {
		err = s.settle(ctx)
	}
	if err != nil {
		return s.explain(ctx, err)
	}
	return s.starts.record(s.want.Name, now)
}

// settle waits until the unit is active.
func (s *service) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := "unknown"
	for {
		u, err := s.host.Units.Unit(ctx, s.want.Name)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			return err
		case runs(u):
			return nil
		case stopped(u):
			return fmt.Errorf("it is %s after its start", u.Active)
		default:
			last = u.Active
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is still %s after %s", last, settleTimeout)
		case <-tick.C:
		}
	}
}

// explain adds the last lines of the unit's journal to an error.
func (s *service) explain(ctx context.Context, cause error) error {
	e := errs.New(errs.Unavailable, "cannot start %s: %w", s.want.Name, cause).WithHint("see journalctl -u %s on the machine", s.want.Name)
	r, err := s.host.Commands.Run(ctx, host.Command{
		Path: "journalctl", Args: []string{"--unit", s.want.Name, "--lines", journalLines, "--no-pager", "--quiet", "--output", "cat"}, Timeout: 5 * time.Second,
	})
	if text := strings.TrimSpace(string(r.Stdout)); err == nil && r.Exit == 0 && text != "" {
		const most = 1 << 10
		if len(text) > most {
			text = "…" + text[len(text)-most:]
		}
		e.Message += "; its journal says:\n" + strings.ToValidUTF8(text, "�")
	}
	return e
}
