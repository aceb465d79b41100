package pkg

import (
	"slices"
	"strings"
)

// relation is one package that a field names, with a bound on its version (deb-control(5)).
type relation struct {
	name, operator, version string
}

// parseRelations returns the groups of alternatives of a field.
func parseRelations(field string) [][]relation {
	var groups [][]relation
	for group := range strings.SplitSeq(field, ",") {
		var alternatives []relation
		for one := range strings.SplitSeq(group, "|") {
			if r := parseRelation(strings.TrimSpace(one)); r.name != "" {
				alternatives = append(alternatives, r)
			}
		}
		if len(alternatives) > 0 {
			groups = append(groups, alternatives)
		}
	}
	return groups
}

func parseRelation(s string) relation {
	name, bound, _ := strings.Cut(s, "(")
	name, _, _ = strings.Cut(strings.TrimSpace(name), ":")
	bound, _, _ = strings.Cut(bound, ")")
	bound = strings.TrimSpace(bound)
	i := 0
	for i < len(bound) && strings.IndexByte("<>=", bound[i]) >= 0 {
		i++
	}
	return relation{strings.TrimSpace(name), bound[:i], strings.TrimSpace(bound[i:])}
}

// allows reports whether a version is within the bound.
func (r relation) allows(version string) bool {
	c := compareVersions(version, r.version)
	switch r.operator {
	case "":
		return true
	case "=":
		return c == 0
	case ">=", ">":
		return c >= 0
	case "<=", "<":
		return c <= 0
	case ">>":
		return c > 0
	case "<<":
		return c < 0
	}
	return false
}

// world is a set of packages by name, with what they provide.
type world struct {
	packages map[string]*stanza
	// providers of virtual packages.
	providers map[string][]provider
}

type provider struct {
	by      *stanza
	version string
}

func newWorld() *world {
	return &world{make(map[string]*stanza), make(map[string][]provider)}
}

func (w *world) add(s *stanza) {
	w.packages[s.name] = s
	for _, group := range parseRelations(s.provides) {
		for _, r := range group {
			w.providers[r.name] = append(w.providers[r.name], provider{s, r.version})
		}
	}
}

// satisfies reports whether one of the alternatives is there.
func (w *world) satisfies(alternatives []relation) bool {
	return slices.ContainsFunc(alternatives, func(r relation) bool { return len(w.matching(r)) > 0 })
}

// matching returns the packages that a relation means. A provided name has a version only where it says so
// (deb-control(5)).
func (w *world) matching(r relation) []*stanza {
	var list []*stanza
	if s := w.packages[r.name]; s != nil && r.allows(s.version) {
		list = append(list, s)
	}
	for _, p := range w.providers[r.name] {
		if r.operator == "" || p.version != "" && r.allows(p.version) {
			list = append(list, p.by)
		}
	}
	return list
}

// clashes reports whether a package's Conflicts or Breaks mean another one of the world.
func (w *world) clashes(s *stanza) bool {
	for _, field := range []string{s.conflicts, s.breaks} {
		for _, group := range parseRelations(field) {
			for _, r := range group {
				if slices.ContainsFunc(w.matching(r), func(other *stanza) bool { return other.name != s.name }) {
					return true
				}
			}
		}
	}
	return false
}
