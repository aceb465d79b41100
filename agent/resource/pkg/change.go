package pkg

import (
	"slices"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// maxBroken bounds how many broken packages a diff names.
const maxBroken = 5

// installed is what the package manager's database says, reduced to what is asked.
type installed struct {
	// versions of the packages that are installed and configured.
	versions map[string]string
	// provided are the virtual packages that those provide.
	provided map[string]bool
	// held are the packages that keep their version.
	held map[string]bool
	// broken are packages in the midst of a transaction, as "name is half-configured".
	broken []string
	// troubles are further things that repair ends, and lines that say them.
	troubles []string
	// leftovers are things that a crash left behind, which begin and end clear away.
	leftovers []string
}

// target is a package to install.
type target struct {
	name string
	// version is exact; empty means any.
	version string
	// repository that it must come from; empty means any.
	repository string
}

// change is what is to be done.
type change struct {
	// lines say it to people.
	lines   []string
	install []target
	remove  []string
	// hold and release are holds to make and to take away; blocked are packages whose hold is in the way of install.
	hold, release, blocked []string
	// from are packages whose repository is to be noted, with what they must come from.
	from map[string]string
	// repair says that a transaction was interrupted.
	repair bool
}

// diff compares what is wanted with what is installed.
func (p *packages) diff(in *installed, notes *noted) *change {
	c := &change{repair: len(in.broken)+len(in.troubles) > 0, from: make(map[string]string)}
	c.lines = append(c.lines, in.troubles...)
	c.lines = append(c.lines, in.broken[:min(len(in.broken), maxBroken)]...)
	for _, w := range p.want {
		version, real := in.versions[w.Name]
		if w.Absent {
			if real {
				c.lines = append(c.lines, "-"+w.Name+" "+version)
				c.remove = append(c.remove, w.Name)
				c.block(in, w.Name)
			}
			continue
		}
		p.diffPresent(c, in, notes, w)
		if w.Hold && !in.held[w.Name] {
			c.hold = append(c.hold, w.Name)
			c.lines = append(c.lines, "+"+w.Name+" held")
		}
	}
	for _, name := range notes.Holds {
		wanted := slices.ContainsFunc(p.want, func(w *agentv1.Package) bool { return w.Name == name && w.Hold && !w.Absent })
		if !wanted && in.held[name] {
			c.lines = append(c.lines, "-"+name+" held")
			c.release = append(c.release, name)
		}
	}
	c.lines = append(c.lines, in.leftovers...)
	return c
}

func (p *packages) diffPresent(c *change, in *installed, notes *noted, w *agentv1.Package) {
	version, real := in.versions[w.Name]
	t := target{w.Name, w.Version, w.Repository}
	wrong := w.Version != "" && !p.manager.matches(w.Version, version)
	switch {
	// A virtual package is enough where nothing is asked but that it is there.
	case !real && w.Version == "" && w.Repository == "" && !w.Hold && in.provided[w.Name]:
		return
	case !real:
		c.lines = append(c.lines, "+"+join(w.Name, w.Version, w.Repository))
	case wrong:
		c.lines = append(c.lines, "-"+w.Name+" "+version, "+"+join(w.Name, w.Version, w.Repository))
		c.block(in, w.Name)
	case w.Repository != "" && notes.Origins[w.Name] != p.origin(w.Repository, version):
		c.lines = append(c.lines, w.Name+" "+version+": not known to come from repository "+w.Repository)
		c.from[w.Name] = w.Repository
		return
	default:
		return
	}
	c.install = append(c.install, t)
	if w.Repository != "" {
		c.from[w.Name] = w.Repository
	}
}

// block notes that a hold is in the way of a change.
func (c *change) block(in *installed, name string) {
	if in.held[name] {
		c.blocked = append(c.blocked, name)
	}
}

func join(name, version, repository string) string {
	if version != "" {
		name += " " + version
	}
	if repository != "" {
		name += " from " + repository
	}
	return name
}
