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
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

// UpstreamsPath lists the DNS servers that the machine used before, one address a line.
const UpstreamsPath = conffile.UpstreamsPath

const (
	confPath   = "/etc/resolv.conf"
	uplinkPath = "/run/systemd/resolve/resolv.conf"
	stubLink   = "../run/systemd/resolve/stub-resolv.conf"
	dropInPath = "/etc/systemd/resolved.conf.d/provisionr.conf"
	unit       = "systemd-resolved.service"

	managerDir   = "/run/NetworkManager"
	managerUnit  = "NetworkManager.service"
	managerConf  = "/etc/NetworkManager/conf.d/provisionr.conf"
	headPath     = "/etc/resolvconf/resolv.conf.d/head"
	settingsPath = "/etc/resolvconf.conf"
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

// Triggers implements converge.Triggered.
func (r *resolver) Triggers() []converge.Trigger {
	var all []converge.Trigger
	for _, path := range []string{confPath, uplinkPath, dropInPath, UpstreamsPath, managerConf, headPath, settingsPath} {
		all = append(all, converge.Trigger{Kind: converge.OnFile, Name: path})
	}
	return append(all, converge.Trigger{Kind: converge.OnUnit, Name: unit})
}

// Units implements converge.Looking.
func (r *resolver) Units() []string { return []string{unit} }

// plan is what is to be done on a machine with these facts.
type plan struct {
	// record is the file of upstreams; nil where none are known.
	record *conffile.File
	// told are files that who resolves, or who writes resolv.conf, reads; nil where there is nobody. Reload makes it do so.
	told   *conffile.Set
	reload func(ctx context.Context) error
	// stale says that what was told before has not come into effect.
	stale string
	// conf is /etc/resolv.conf where nobody else writes it.
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
	tell := func(path string, content []byte) {
		p.told = conffile.NewSet(r.host, "resolver", conffile.File{Path: path, Content: content})
	}
	switch m {
	case resolved, resolvedAround:
		tell(dropInPath, dropIn(r.zones))
		p.reload = func(ctx context.Context) error { return r.host.Units.ReloadOrRestart(ctx, unit) }
	case networkManager:
		tell(managerConf, []byte(leaveConf))
		p.reload = func(ctx context.Context) error { return r.host.Units.ReloadOrRestart(ctx, managerUnit) }
		p.conf = &conffile.File{Path: confPath, Content: plainConf(f.conf)}
	case debianResolvconf:
		tell(headPath, withLine(f.head, headLine))
		p.reload = r.update
	case openresolv:
		tell(settingsPath, withLine(f.settings, settingsLine))
		p.reload = r.update
	default:
		p.conf = &conffile.File{Path: confPath, Content: plainConf(f.conf)}
	}
	if servers := nameservers(f.conf); (m == debianResolvconf || m == openresolv) && (len(servers) == 0 || servers[0] != stub) {
		p.stale = confPath + ": does not have " + stub.String() + " as its first server"
	}
	return p, nil
}

// update has resolvconf write resolv.conf anew.
func (r *resolver) update(ctx context.Context) error {
	_, err := command.Run(ctx, r.host, host.Command{Path: "resolvconf", Args: []string{"-u"}})
	return err
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
	if p.told != nil {
		d, err := p.told.Check()
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, d)
	}
	if p.relink {
		diffs = append(diffs, confPath+": leads around systemd-resolved, wanted a link to "+stubLink)
	}
	return converge.Diff{Text: textdiff.Join(append(diffs, p.stale)...)}, nil
}

// Apply implements converge.Resource. The upstreams are recorded first: afterwards nothing else tells them. Who writes
// resolv.conf is told to leave it before it is written here.
func (r *resolver) Apply(ctx context.Context) error {
	p, err := r.plan(ctx)
	if err != nil {
		return err
	}
	if p.record != nil {
		if err := conffile.Apply(r.host, p.record); err != nil {
			return err
		}
	}
	if p.told != nil {
		reloaded := false
		err := p.told.Apply(func() error {
			reloaded = true
			return p.reload(ctx)
		})
		if err == nil && p.stale != "" && !reloaded {
			err = p.reload(ctx)
		}
		if err != nil {
			return fmt.Errorf("cannot route names to the stub: %w", err)
		}
	}
	if p.conf != nil {
		if err := conffile.Apply(r.host, p.conf); err != nil {
			return err
		}
	}
	if p.relink {
		return r.linkToStub()
	}
	return nil
}

func (r *resolver) facts(ctx context.Context) (facts, error) {
	var f facts
	for name, runs := range map[string]*bool{unit: &f.resolvedRuns, managerUnit: &f.managerRuns} {
		if name == managerUnit && !conffile.Exists(r.host, managerDir) {
			continue // it has not run since the boot
		}
		u, err := r.host.Units.Unit(ctx, name)
		if err != nil {
			return facts{}, err
		}
		*runs = u.Active == "active" || u.Active == "reloading"
	}
	dir, base, err := conffile.Parent(r.host, confPath, false)
	if err != nil {
		return facts{}, err
	}
	defer dir.Close()
	if target, err := dir.Readlink(base); err == nil {
		f.target = target
	}
	conf := confPath
	if f.target != "" {
		conf = follow(f.target)
	}
	for _, file := range []struct {
		path   string
		to     *string
		exists *bool
	}{
		{conf, &f.conf, nil}, {uplinkPath, &f.uplinks, nil}, {managerConf, nil, &f.told},
		{managerDir + "/no-stub-resolv.conf", &f.manager, nil},
		{headPath, &f.head, &f.hasHead}, {settingsPath, &f.settings, &f.hasSettings},
	} {
		b, err := conffile.Read(r.host, file.path, maxConf)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return facts{}, err
		}
		if file.to != nil {
			*file.to = string(b)
		}
		if file.exists != nil {
			*file.exists = err == nil
		}
	}
	return f, r.interfaces(&f)
}

// interfaces reads what resolvconf was given: Debian's keeps it in interface, openresolv in interfaces or keys.
func (r *resolver) interfaces(f *facts) error {
	for _, dir := range []string{"/run/resolvconf/interface", "/run/resolvconf/interfaces", "/run/resolvconf/keys"} {
		names, err := conffile.List(r.host, dir, "*")
		if err != nil {
			return err
		}
		for _, name := range names {
			b, err := conffile.Read(r.host, dir+"/"+name, maxConf)
			if err != nil {
				return err
			}
			f.interfaces += string(b) + "\n"
		}
	}
	return nil
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
