package converge

import (
	"slices"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
)

// Order returns the resources so that each comes after those that it names in After, and as near to the given order as
// that allows. Two resources of one name, and a cycle, are errors of kind errs.Invalid; a cycle is named.
func Order(resources []Resource) ([]Resource, error) {
	graph, err := newGraph(resources)
	if err != nil {
		return nil, err
	}
	ordered := make([]Resource, 0, len(resources))
	done := make([]bool, len(resources))
	for len(ordered) < len(resources) {
		next := slices.IndexFunc(graph.before, func(before []int) bool { return before != nil && all(before, done) })
		if next < 0 {
			return nil, errs.New(errs.Invalid, "cannot order resources: %s come after each other", strings.Join(graph.cycle(done), " -> "))
		}
		ordered = append(ordered, resources[next])
		done[next] = true
		graph.before[next] = nil
	}
	return ordered, nil
}

// graph holds, by index of a resource, the indices of those before it. It is never nil for a resource not yet placed.
type graph struct {
	names  []string
	before [][]int
}

func newGraph(resources []Resource) (*graph, error) {
	g := &graph{names: make([]string, len(resources)), before: make([][]int, len(resources))}
	byName := make(map[string]int, len(resources))
	byKind := make(map[string][]int)
	for i, r := range resources {
		name := r.Name()
		if _, twice := byName[name]; twice {
			return nil, errs.New(errs.Invalid, "cannot order resources: %s comes twice", name)
		}
		g.names[i], byName[name] = name, i
		byKind[kindOf(name)] = append(byKind[kindOf(name)], i)
	}
	for i, r := range resources {
		g.before[i] = []int{}
		ordered, ok := r.(Ordered)
		if !ok {
			continue
		}
		for _, after := range ordered.After() {
			if j, ok := byName[after]; ok {
				g.before[i] = append(g.before[i], j)
				continue
			}
			for _, j := range byKind[after] {
				if j != i {
					g.before[i] = append(g.before[i], j)
				}
			}
		}
		slices.Sort(g.before[i])
		g.before[i] = slices.Compact(g.before[i])
	}
	return g, nil
}

// cycle walks from one resource that was not placed to another before it until it meets one again.
func (g *graph) cycle(done []bool) []string {
	var walk []int
	at := slices.Index(done, false)
	for !slices.Contains(walk, at) {
		walk = append(walk, at)
		next := slices.IndexFunc(g.before[at], func(j int) bool { return !done[j] })
		at = g.before[at][next]
	}
	walk = append(walk[slices.Index(walk, at):], at)
	names := make([]string, len(walk))
	for i, j := range walk {
		names[i] = g.names[j]
	}
	return names
}

func all(indices []int, done []bool) bool {
	return !slices.ContainsFunc(indices, func(i int) bool { return !done[i] })
}

// kindOf returns what stands before the first slash of a name.
func kindOf(name string) string {
	kind, _, _ := strings.Cut(name, "/")
	return kind
}
