package pkg

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

// maxRounds bounds how deep dependencies may go; each costs a pass over the lists.
const maxRounds = 12

// additions returns the packages that install the targets with all that they depend on, where that is a plain addition:
// every package is new, each dependency is met by what is there or else by its first alternative, nothing conflicts, no
// Pre-Depends is met by a package of the set, and the machine has one architecture and no preferences. It returns none
// otherwise: apt-get decides then.
func (a *apt) additions(ctx context.Context, targets []target) ([]*stanza, error) {
	if len(targets) == 0 {
		return nil, nil
	}
	lists, err := a.plainLists()
	if err != nil || len(lists) == 0 {
		return nil, err
	}
	all, err := a.readStatus()
	if err != nil {
		return nil, err
	}
	r := &resolution{there: newWorld(), all: newWorld(), present: make(map[string]bool)}
	for _, s := range all {
		switch {
		case strings.HasSuffix(s.status, " installed"):
			r.there.add(s)
			r.all.add(s)
			r.present[s.name] = true
		case !strings.HasSuffix(s.status, " not-installed") && !strings.HasSuffix(s.status, " config-files"):
			return nil, nil // dpkg is in the midst of something
		}
	}
	pending := make(map[string]string)
	for _, t := range targets {
		pending[t.name] = t.version
	}
	for range maxRounds {
		if len(pending) == 0 {
			return r.checked(), nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		found, err := a.candidates(lists, pending)
		if err != nil {
			return nil, err
		}
		if pending = r.choose(pending, found); pending == nil {
			return nil, nil
		}
	}
	return nil, nil
}

// resolution is a set in the making.
type resolution struct {
	// there is what is installed, all is that with what is chosen.
	there, all *world
	present    map[string]bool
	chosen     []*stanza
}

// choose takes in candidates, and returns the packages that they need; nil says that it is no plain addition.
func (r *resolution) choose(pending map[string]string, found map[string]*stanza) map[string]string {
	names := slices.Sorted(maps.Keys(pending))
	for _, name := range names {
		s := found[name]
		if s == nil || r.present[name] || s.sha256 == "" || s.size == 0 {
			return nil
		}
		r.chosen = append(r.chosen, s)
		r.all.add(s)
	}
	next := make(map[string]string)
	for _, name := range names {
		s := found[name]
		for _, group := range slices.Concat(parseRelations(s.depends), parseRelations(s.preDepends)) {
			if r.all.satisfies(group) {
				continue
			}
			if r.all.packages[group[0].name] != nil {
				return nil // it is there in another version
			}
			next[group[0].name] = ""
		}
	}
	return next
}

// checked returns the set if it holds together.
func (r *resolution) checked() []*stanza {
	for _, s := range r.chosen {
		for _, group := range parseRelations(s.depends) {
			if !r.all.satisfies(group) {
				return nil
			}
		}
		for _, group := range parseRelations(s.preDepends) {
			if !r.there.satisfies(group) {
				return nil
			}
		}
		if r.all.clashes(s) {
			return nil
		}
	}
	// What is installed was consistent before: only what is new can disturb it.
	added := newWorld()
	for _, s := range r.chosen {
		added.add(s)
	}
	for _, s := range r.there.packages {
		if added.clashes(s) {
			return nil
		}
	}
	return r.chosen
}

// candidates returns the newest version of each package, or the one asked for.
func (a *apt) candidates(lists []string, pending map[string]string) (map[string]*stanza, error) {
	wanted := make(map[string]bool)
	for name := range pending {
		wanted[name] = true
	}
	found := make(map[string]*stanza)
	for _, list := range lists {
		err := a.readList(list, wanted, func(s *stanza) {
			best := found[s.name]
			if version := pending[s.name]; version != "" && s.version != version || s.arch != "all" && s.arch != debianArch() {
				return
			}
			if best == nil || compareVersions(s.version, best.version) > 0 {
				found[s.name] = s
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// debianArch is Debian's name for the architecture that the agent was built for.
func debianArch() string {
	if arch, ok := map[string]string{"386": "i386", "arm": "armhf", "ppc64le": "ppc64el"}[runtime.GOARCH]; ok {
		return arch
	}
	return runtime.GOARCH
}

// plainLists returns the lists of signed archives where nothing but versions decides between them; else none.
func (a *apt) plainLists() ([]string, error) {
	if names, err := conffile.List(a.host, "/etc/apt/preferences.d", "*"); err != nil || len(names) > 0 {
		return nil, err
	}
	foreign, err := conffile.Read(a.host, "/var/lib/dpkg/arch", 4<<10)
	if err == nil && len(strings.Fields(string(foreign))) > 1 || conffile.Exists(a.host, "/etc/apt/preferences") {
		return nil, nil
	}
	if decides, err := a.configDecides(); err != nil || decides {
		return nil, err
	}
	names, err := conffile.List(a.host, listsDir, "*")
	if err != nil {
		return nil, err
	}
	var lists []string
	for _, name := range names {
		base, kind, ok := cutLast(name, "_Packages")
		if !ok {
			continue
		}
		if kind != "" {
			return nil, nil // compressed
		}
		signed, plain, err := a.release(names, base)
		if err != nil {
			return nil, err
		}
		if signed && plain {
			lists = append(lists, name)
		} else if plain {
			return nil, nil
		}
	}
	return lists, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// release finds the Release file that a list belongs to: the longest whose name begins the list's. It says whether that is
// signed, and whether its packages are installed without being asked for by release (NotAutomatic).
func (a *apt) release(names []string, list string) (signed, plain bool, err error) {
	var file, prefix string
	for _, name := range names {
		for _, ending := range []string{"InRelease", "Release"} {
			if p, ok := strings.CutSuffix(name, "_"+ending); ok && strings.HasPrefix(list, p+"_") && (len(p) > len(prefix) || p == prefix && ending == "InRelease") {
				file, prefix = name, p
			}
		}
	}
	if file == "" {
		return false, true, nil
	}
	content, err := conffile.Read(a.host, path.Join(listsDir, file), 8<<20)
	if err != nil {
		return false, false, err
	}
	signed = strings.HasSuffix(file, "InRelease") && strings.Contains(string(content), "-----BEGIN PGP SIGNATURE-----") ||
		slices.Contains(names, file+".gpg")
	head, _, _ := strings.Cut(string(content), "\nSHA256:")
	return signed, !strings.Contains(head, "\nNotAutomatic: yes"), nil
}

// configDecides reports whether apt's configuration has a say in what is installed, or must be told of it.
func (a *apt) configDecides() (bool, error) {
	names, err := conffile.List(a.host, "/etc/apt/apt.conf.d", "*")
	if err != nil {
		return false, err
	}
	files := []string{"/etc/apt/apt.conf"}
	for _, name := range names {
		files = append(files, "/etc/apt/apt.conf.d/"+name)
	}
	for _, file := range files {
		content, err := conffile.Read(a.host, file, 1<<20)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		for line := range strings.Lines(string(content)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "//") || strings.HasPrefix(line, "#") {
				continue
			}
			for _, word := range []string{"Default-Release", "Pre-Invoke", "APT::Architectures", "Dir::State", "Dir::Cache", "Dir::Etc::preferences"} {
				if strings.Contains(line, word) {
					return true, nil
				}
			}
		}
	}
	return false, nil
}
