package pkg

import (
	"context"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// dnf is the manager of Fedora's packages: dnf 4 or dnf 5, which have in common what is used here.
type dnf struct {
	host   *host.Host
	limits limits
	db     rpmDB
}

func (d *dnf) triggers() []converge.Trigger {
	var list []converge.Trigger
	for _, dir := range rpmDirs {
		list = append(list, converge.Trigger{Kind: converge.OnFile, Name: dir})
	}
	return append(list, converge.Trigger{Kind: converge.OnFile, Name: dnfConf})
}

// matches takes a version with or without its epoch 0, and with or without its release.
func (d *dnf) matches(want, have string) bool {
	if have == "" {
		return false
	}
	if !strings.Contains(want, ":") && !strings.Contains(have, ":") || strings.Contains(want, ":") && strings.Contains(have, ":") {
		version, _, _ := cutLast(have, "-")
		return want == have || want == version
	}
	return strings.HasPrefix(want, "0:") && d.matches(want[2:], have)
}

// rootArgs direct a program of rpm or dnf to the host's root, where that is not the running system.
func (d *dnf) rootArgs(flag string) []string {
	if d.host.Root == "/" || d.host.Root == "" {
		return nil
	}
	return []string{flag + d.host.Root}
}

// args of every dnf call.
func (d *dnf) args(more ...string) []string {
	args := append(d.rootArgs("--installroot="), "-y", "-q", "--setopt=install_weak_deps=False", "--setopt=exit_on_lock=True",
		"--setopt=timeout=30", "--setopt=retries=3")
	if root := d.rootArgs(""); root != nil {
		args = append(args, "-c", root[0]+dnfConf, "--setopt=reposdir="+root[0]+"/etc/yum.repos.d")
	}
	return append(args, more...)
}

func (d *dnf) read(ctx context.Context) (*installed, error) {
	in, err := d.packages(ctx)
	if err != nil {
		return nil, err
	}
	all := *in
	excluded, err := d.excluded()
	if err != nil {
		return nil, err
	}
	all.held = make(map[string]bool)
	for _, name := range excluded {
		all.held[name] = true
	}
	return &all, nil
}

// begin has nothing to ready: dnf takes its lock itself, and Fedora's packages start no services.
func (d *dnf) begin(context.Context) (func() error, error) {
	return func() error { return nil }, nil
}

// repair has nothing to do: rpm's database is transactional.
func (d *dnf) repair(context.Context) error { return nil }

// transact removes, then installs: dnf 5 has no command for both. Removal comes first, as what replaces it may conflict.
func (d *dnf) transact(ctx context.Context, c *change) error {
	if len(c.remove) > 0 {
		if err := d.run(ctx, "remove packages", d.args(append([]string{"remove"}, c.remove...)...)); err != nil {
			return err
		}
	}
	if len(c.install) == 0 {
		return nil
	}
	specs := []string{"install"}
	for _, t := range c.install {
		if t.version != "" {
			specs = append(specs, t.name+"-"+t.version)
		} else {
			specs = append(specs, t.name)
		}
	}
	err := d.run(ctx, "change packages", d.args(specs...))
	if !errs.Is(err, errs.NotFound) {
		return err
	}
	return d.run(ctx, "change packages", d.args(append([]string{"--refresh"}, specs...)...))
}

// offers asks dnf for what one repository has.
func (d *dnf) offers(ctx context.Context, repository *agentv1.Repository, names []string) (map[string][]string, error) {
	found := make(map[string][]string)
	args := d.args(append([]string{"repoquery", "--disablerepo=*", "--enablerepo=" + repository.Name, "--setopt=excludepkgs=",
		"--qf", "%{name} %{evr} %{arch}\n"}, names...)...)
	r, err := d.host.Commands.Run(ctx, host.Command{Path: "dnf", Args: args, Timeout: d.limits.update})
	if err != nil {
		return nil, errs.New(errs.Unavailable, "cannot ask repository %s: %w", repository.Name, err)
	}
	if r.Exit != 0 {
		return nil, classify("ask repository "+repository.Name, r)
	}
	for line := range strings.Lines(string(r.Stdout)) {
		if f := strings.Fields(line); len(f) == 3 && f[2] != "src" {
			found[f[0]] = append(found[f[0]], strings.TrimPrefix(f[1], "0:"))
		}
	}
	for _, versions := range found {
		slices.SortFunc(versions, func(x, y string) int { return compareVersions(y, x) })
	}
	return found, nil
}

func (d *dnf) run(ctx context.Context, verb string, args []string) error {
	r, err := d.host.Commands.Run(ctx, host.Command{Path: "dnf", Args: args, Timeout: d.limits.transaction})
	if err != nil {
		return errs.New(errs.Unavailable, "cannot %s: %w", verb, err)
	}
	if r.Exit == dnfLocked {
		return errs.New(errs.Unavailable, "cannot %s: another program holds dnf's lock: %s", verb, command.Tail(r)).WithHint("it is tried again")
	}
	if r.Exit != 0 {
		return classify(verb, r)
	}
	return nil
}

// dnfLocked is dnf's exit where another holds its lock and exit_on_lock is set (dnf(8)).
const dnfLocked = 200
