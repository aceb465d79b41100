package pkg

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/implied"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// limits bound how long things may take.
type limits struct {
	update, transaction, configure, lock time.Duration
}

var defaultLimits = limits{update: 5 * time.Minute, transaction: 25 * time.Minute, configure: 15 * time.Minute, lock: 5 * time.Minute}

// manager is a package manager.
type manager interface {
	// read returns what is installed. It runs a program only where the package manager's database changed.
	read(ctx context.Context) (*installed, error)
	// begin readies the machine for a transaction, and returns what ends it.
	begin(ctx context.Context) (end func() error, err error)
	// repair ends what an interrupted transaction left undone.
	repair(ctx context.Context) error
	// transact installs and removes.
	transact(ctx context.Context, c *change) error
	// setHolds makes and takes away holds of installed packages.
	setHolds(ctx context.Context, hold, release []string) error
	// offers returns the versions, newest first, that a repository has of each package.
	offers(ctx context.Context, repository *agentv1.Repository, names []string) (map[string][]string, error)
	// matches reports whether an installed version is the one wanted.
	matches(want, have string) bool
	triggers() []converge.Trigger
}

// New returns the resource for all packages of the pool and those that other resources need.
func New(s *desired.State, h *host.Host) []converge.Resource {
	return []converge.Resource{newPackages(s, h, defaultLimits)}
}

func newPackages(s *desired.State, h *host.Host, l limits) *packages {
	p := &packages{host: h, want: wanted(s), repositories: make(map[string]*agentv1.Repository), ledger: ledger{host: h}}
	for _, r := range s.Pool.GetRepositories() {
		p.repositories[r.Name] = r
	}
	if Dnf(s) {
		p.manager = &dnf{host: h, limits: l}
	} else {
		p.manager = &apt{host: h, limits: l, status: status{host: h}}
	}
	return p
}

// Dnf reports whether the machine's packages are dnf's; they are apt's otherwise.
func Dnf(s *desired.State) bool { return s.Machine.GetOs().GetDistribution() == "fedora" }

// wanted returns the pool's packages and the implied ones. What the pool says of a package itself has precedence.
func wanted(s *desired.State) []*agentv1.Package {
	want := slices.Clone(s.Pool.GetPackages())
	imply := func(name string) {
		if !slices.ContainsFunc(want, func(p *agentv1.Package) bool { return p.Name == name }) {
			want = append(want, &agentv1.Package{Name: name})
		}
	}
	for _, name := range implied.Packages(s) {
		imply(name)
	}
	return want
}

type packages struct {
	host         *host.Host
	manager      manager
	want         []*agentv1.Package
	repositories map[string]*agentv1.Repository

	// mu guards what read caches: proofs may check while the runner does.
	mu     sync.Mutex
	ledger ledger
}

// Name implements converge.Resource.
func (p *packages) Name() string { return "package/all" }

// After implements converge.Ordered: sources and the way to them come first; maintainer scripts want the host's name.
func (p *packages) After() []string {
	return []string{"proxy", "repository", "resolver", "hosts/hostname"}
}

// Triggers implements converge.Triggered.
func (p *packages) Triggers() []converge.Trigger { return p.manager.triggers() }

// Check implements converge.Resource.
func (p *packages) Check(ctx context.Context) (converge.Diff, error) {
	c, err := p.compare(ctx)
	if err != nil {
		return converge.Diff{}, err
	}
	return converge.Diff{Text: textdiff.Bound(strings.Join(c.lines, "\n"))}, nil
}

func (p *packages) compare(ctx context.Context) (*change, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	in, err := p.manager.read(ctx)
	if err != nil {
		return nil, err
	}
	noted, err := p.ledger.read()
	if err != nil {
		return nil, err
	}
	return p.diff(in, noted), nil
}

// Apply implements converge.Resource.
func (p *packages) Apply(ctx context.Context) (err error) {
	end, err := p.manager.begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	c, err := p.compare(ctx)
	if err != nil {
		return err
	}
	if c.repair {
		if err := p.manager.repair(ctx); err != nil {
			return err
		}
		if c, err = p.compare(ctx); err != nil {
			return err
		}
	}
	if err := p.locate(ctx, c); err != nil {
		return err
	}
	return p.carryOut(ctx, c)
}

// carryOut changes what is to be changed. Holds that are in the way are taken away first and made again after it.
func (p *packages) carryOut(ctx context.Context, c *change) error {
	if len(c.install)+len(c.remove) > 0 {
		if len(c.blocked) > 0 {
			if err := p.manager.setHolds(ctx, nil, c.blocked); err != nil {
				return err
			}
		}
		if err := p.manager.transact(ctx, c); err != nil {
			return err
		}
	}
	for _, w := range p.want {
		if w.Hold && !w.Absent && slices.Contains(c.blocked, w.Name) {
			c.hold = append(c.hold, w.Name)
		}
	}
	if err := p.note(ctx, c); err != nil {
		return err
	}
	if len(c.hold)+len(c.release) == 0 {
		return nil
	}
	if err := p.manager.setHolds(ctx, c.hold, c.release); err != nil {
		return err
	}
	return p.remember(func(l *noted) {
		l.Holds = slices.DeleteFunc(l.Holds, func(name string) bool { return slices.Contains(c.release, name) })
	})
}
