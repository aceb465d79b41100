package pkg

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// maxBroken bounds how many broken packages a diff names.
const maxBroken = 5

// New returns the resource for all packages of the pool and those that other resources need.
func New(s *desired.State, h *host.Host) []converge.Resource {
	return []converge.Resource{&packages{host: h, want: wanted(s), status: status{host: h}}}
}

// wanted returns the pool's packages and the implied ones. What the pool says of a package itself has precedence.
func wanted(s *desired.State) []*agentv1.Package {
	want := slices.Clone(s.Pool.GetPackages())
	imply := func(name string) {
		if !slices.ContainsFunc(want, func(p *agentv1.Package) bool { return p.Name == name }) {
			want = append(want, &agentv1.Package{Name: name})
		}
	}
	imply("chrony")
	if s.Pool.GetFirewall().GetEnabled() {
		imply("nftables")
	}
	if slices.ContainsFunc(s.Pool.GetUsers(), func(u *agentv1.User) bool { return u.Admin && !u.Absent }) {
		imply("sudo")
	}
	return want
}

type packages struct {
	host *host.Host
	want []*agentv1.Package

	// mu guards status: proofs may check while the runner does.
	mu     sync.Mutex
	status status
}

// Name implements converge.Resource.
func (p *packages) Name() string { return "package/all" }

// After implements converge.Ordered: sources and the way to them come first; maintainer scripts want the host's name.
func (p *packages) After() []string { return []string{"repository", "resolver", "hosts/hostname"} }

// Check implements converge.Resource.
func (p *packages) Check(context.Context) (converge.Diff, error) {
	c, err := p.compare()
	if err != nil {
		return converge.Diff{}, err
	}
	return converge.Diff{Text: textdiff.Bound(strings.Join(c.lines, "\n"))}, nil
}

// change is what is to be done.
type change struct {
	// lines say it to people.
	lines []string
	// targets are arguments of apt-get install: name, name=version, or name- for a removal.
	targets []string
	// repair says that dpkg was interrupted.
	repair bool
}

func (p *packages) compare() (*change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	in, err := p.status.read()
	if err != nil {
		return nil, err
	}
	interrupted, err := p.status.interrupted()
	if err != nil {
		return nil, err
	}
	c := diff(p.want, in, interrupted)
	if leftover(p.host) {
		c.lines = append(c.lines, policyPath+": left from an interrupted transaction, services cannot start")
	}
	return c, nil
}

// diff compares what is wanted with what is installed.
func diff(want []*agentv1.Package, in *installed, interrupted bool) *change {
	c := &change{repair: interrupted || len(in.broken) > 0}
	if interrupted {
		c.lines = append(c.lines, "dpkg was interrupted")
	}
	if n := len(in.broken); n > 0 {
		c.lines = append(c.lines, in.broken[:min(n, maxBroken)]...)
	}
	for _, w := range want {
		version, real := in.versions[w.Name]
		switch {
		case w.Absent && real:
			c.lines = append(c.lines, "-"+w.Name+" "+version)
			c.targets = append(c.targets, w.Name+"-")
		case w.Absent:
		case w.Version == "" && !real && !in.provided[w.Name]:
			c.lines = append(c.lines, "+"+w.Name)
			c.targets = append(c.targets, w.Name)
		case w.Version != "" && !real:
			c.lines = append(c.lines, "+"+w.Name+" "+w.Version)
			c.targets = append(c.targets, w.Name+"="+w.Version)
		case w.Version != "" && version != w.Version:
			c.lines = append(c.lines, "-"+w.Name+" "+version, "+"+w.Name+" "+w.Version)
			c.targets = append(c.targets, w.Name+"="+w.Version)
		}
	}
	return c
}
