package pkg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	ledgerPath = conffile.StateDir + "/packages.json"
	maxLedger  = 4 << 20
)

// noted is what the package manager itself does not remember.
type noted struct {
	// Holds that we made.
	Holds []string `json:"holds,omitempty"`
	// Origins say by package which version came from which repository: see origin.
	Origins map[string]string `json:"origins,omitempty"`
}

// ledger reads and writes the notes.
type ledger struct {
	host *host.Host
	last *noted
}

// read returns the notes, which nobody else writes.
func (l *ledger) read() (*noted, error) {
	if l.last != nil {
		return l.last, nil
	}
	n := &noted{}
	content, err := conffile.Read(l.host, ledgerPath, maxLedger)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// Notes that cannot be read are made again: they only save work.
	if err == nil && json.Unmarshal(content, n) != nil {
		n = &noted{}
	}
	l.last = n
	return n, nil
}

// remember changes the notes.
func (p *packages) remember(f func(*noted)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, err := p.ledger.read()
	if err != nil {
		return err
	}
	n := &noted{Holds: slices.Clone(old.Holds), Origins: maps.Clone(old.Origins)}
	if n.Origins == nil {
		n.Origins = make(map[string]string)
	}
	f(n)
	content, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := conffile.Apply(p.host, &conffile.File{Path: ledgerPath, Content: content, Mode: 0o600}); err != nil {
		return err
	}
	p.ledger.last = n
	return nil
}

// origin identifies a version of a repository as it is defined now: another definition under its name asks again.
func (p *packages) origin(repository, version string) string {
	r := p.repositories[repository]
	sum := sha256.Sum256(fmt.Append(nil, r.GetUris(), r.GetSuites(), r.GetComponents(), r.GetSignedBy(), r.GetSignedByUrl(), r.GetSignedBySha256()))
	return repository + "@" + hex.EncodeToString(sum[:6]) + "=" + version
}

// locate finds the versions of packages that must come from a repository. One that is installed in such a version is right.
func (p *packages) locate(ctx context.Context, c *change) error {
	if len(c.from) == 0 {
		return nil
	}
	in, err := p.manager.read(ctx)
	if err != nil {
		return err
	}
	for _, repository := range slices.Sorted(maps.Keys(p.repositories)) {
		var names []string
		for name, r := range c.from {
			if r == repository {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		slices.Sort(names)
		offers, err := p.manager.offers(ctx, p.repositories[repository], names)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := p.choose(c, in, name, repository, offers[name]); err != nil {
				return err
			}
		}
	}
	for name, repository := range c.from {
		if p.repositories[repository] == nil {
			return errs.New(errs.Invalid, "cannot install %s: the pool has no repository %s", name, repository)
		}
	}
	return nil
}

// choose settles the version of one package.
func (p *packages) choose(c *change, in *installed, name, repository string, offers []string) error {
	at := slices.IndexFunc(c.install, func(t target) bool { return t.name == name })
	want := ""
	if at >= 0 {
		want = c.install[at].version
	} else if have := in.versions[name]; slices.ContainsFunc(offers, func(v string) bool { return p.manager.matches(v, have) }) {
		return nil
	} else {
		at = len(c.install)
		c.install = append(c.install, target{name: name, repository: repository})
		c.block(in, name)
	}
	found := slices.IndexFunc(offers, func(v string) bool { return want == "" || p.manager.matches(want, v) })
	if found < 0 {
		return errs.New(errs.NotFound, "cannot install %s: repository %s does not have it", join(name, want, ""), repository).
			WithHint("it has these versions: %v", offers)
	}
	c.install[at].version = offers[found]
	return nil
}

// note remembers what came from where, and which holds will be ours.
func (p *packages) note(ctx context.Context, c *change) error {
	if len(c.from)+len(c.hold) == 0 {
		return nil
	}
	in, err := p.manager.read(ctx)
	if err != nil {
		return err
	}
	return p.remember(func(n *noted) {
		for name, repository := range c.from {
			n.Origins[name] = p.origin(repository, in.versions[name])
		}
		for _, name := range c.hold {
			if !slices.Contains(n.Holds, name) {
				n.Holds = append(n.Holds, name)
			}
		}
	})
}
