package resolver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

// UpstreamsPath lists the DNS servers that the machine used before, one address a line.
const UpstreamsPath = conffile.StateDir + "/upstreams"

const (
	confPath   = "/etc/resolv.conf"
	uplinkPath = "/run/systemd/resolve/resolv.conf"
	stubLink   = "../run/systemd/resolve/stub-resolv.conf"
	dropInPath = "/etc/systemd/resolved.conf.d/provisionr.conf"
	unit       = "systemd-resolved.service"
	// maxConf bounds what is read of a resolv.conf.
	maxConf = 64 << 10
)

// New returns the resource for name resolution; none where the cluster answers for no zone.
func New(s *desired.State, h *host.Host) []converge.Resource {
	zones := slices.Clone(s.Machine.GetZones())
	if len(zones) == 0 {
		return nil
	}
	slices.Sort(zones)
	return []converge.Resource{&resolver{host: h, zones: zones}}
}

type resolver struct {
	host  *host.Host
	zones []string
}

// Name implements converge.Resource.
func (r *resolver) Name() string { return "resolver/system" }

// plan is what is to be done on a machine with these facts.
type plan struct {
	// routes are the files that systemd-resolved reads; nil in plain mode.
	routes *conffile.Set
	// record is the file of upstreams; nil where none are known.
	record *conffile.File
	// conf is /etc/resolv.conf in plain mode.
	conf *conffile.File
	// relink says that /etc/resolv.conf must lead to systemd-resolved.
	relink bool
}

func (r *resolver) plan(ctx context.Context) (*plan, error) {
	f, err := r.facts(ctx)
	if err != nil {
		return nil, err
	}
	m := detect(f)
	p := &plan{relink: m == resolvedAround}
	if up := upstreams(f, m); len(up) > 0 {
		var b strings.Builder
		for _, a := range up {
			b.WriteString(a.String() + "\n")
		}
		p.record = &conffile.File{Path: UpstreamsPath, Content: []byte(b.String())}
	}
	if m == plain {
		p.conf = &conffile.File{Path: confPath, Content: plainConf(f.conf)}
	} else {
		p.routes = conffile.NewSet(r.host, "resolver", conffile.File{Path: dropInPath, Content: dropIn(r.zones)})
	}
	return p, nil
}

// Check implements converge.Resource.
func (r *resolver) Check(ctx context.Context) (converge.Diff, error) {
	p, err := r.plan(ctx)
	if err != nil {
		return converge.Diff{}, err
	}
	var diffs []string
	for _, f := range []*conffile.File{p.record, p.conf} {
		if f == nil {
			continue
		}
		d, err := conffile.Check(r.host, f, &conffile.Seen{})
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, d)
	}
	if p.routes != nil {
		d, err := p.routes.Check()
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, d)
	}
	if p.relink {
		diffs = append(diffs, confPath+": leads around systemd-resolved, wanted a link to "+stubLink)
	}
	return converge.Diff{Text: textdiff.Join(diffs...)}, nil
}

// Apply implements converge.Resource. The upstreams are recorded first: afterwards nothing else tells them.
func (r *resolver) Apply(ctx context.Context) error {
	p, err := r.plan(ctx)
	if err != nil {
		return err
	}
	for _, f := range []*conffile.File{p.record, p.conf} {
		if f == nil {
			continue
		}
		if err := conffile.Apply(r.host, f); err != nil {
			return err
		}
	}
	if p.routes != nil {
		reload := func() error { return r.host.Units.ReloadOrRestart(ctx, unit) }
		if err := p.routes.Apply(reload); err != nil {
			return fmt.Errorf("cannot route zones to the stub: %w", err)
		}
	}
	if p.relink {
		return r.linkToStub()
	}
	return nil
}

func (r *resolver) facts(ctx context.Context) (facts, error) {
	u, err := r.host.Units.Unit(ctx, unit)
	if err != nil {
		return facts{}, err
	}
	f := facts{resolvedRuns: u.Active == "active" || u.Active == "reloading"}
	dir, base, err := conffile.Parent(r.host, confPath, false)
	if err != nil {
		return facts{}, err
	}
	defer dir.Close()
	if target, err := dir.Readlink(base); err == nil {
		f.target = target
	}
	for path, to := range map[string]*string{confPath: &f.conf, uplinkPath: &f.uplinks} {
		if path == confPath && f.target != "" {
			path = follow(f.target)
		}
		b, err := conffile.Read(r.host, path, maxConf)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return facts{}, err
		}
		*to = string(b)
	}
	return f, nil
}

// follow returns where a link in /etc leads to; what leads out of the root ends at it.
func follow(target string) string {
	if strings.HasPrefix(target, "/") {
		return target
	}
	return "/etc/" + target
}

// linkToStub makes /etc/resolv.conf lead to systemd-resolved, in one step.
func (r *resolver) linkToStub() error {
	dir, base, err := conffile.Parent(r.host, confPath, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	const temp = ".resolv.conf.provisionr"
	if err := dir.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := dir.Symlink(stubLink, temp); err != nil {
		return fmt.Errorf("cannot link %s: %w", confPath, err)
	}
	if err := dir.Rename(temp, base); err != nil {
		return errors.Join(fmt.Errorf("cannot link %s: %w", confPath, err), dir.Remove(temp))
	}
	return nil
}
