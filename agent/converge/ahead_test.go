package converge_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/converge"
)

// watched is a thing that looks at a unit of its own.
type watched struct{ *thing }

func (w watched) Units() []string { return []string{w.name + ".service"} }

// TestUnitsAreAskedForAtOnce and never after a change: what was asked before it says nothing then.
func TestUnitsAreAskedForAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		right, wrong := watched{&thing{node: node{"a/1", nil}}}, watched{&thing{node: node{"b/1", nil}, wrong: true}}
		ahead := func(units ...string) { calls = append(calls, strings.Join(units, " ")) }
		resources := []converge.Resource{right, &thing{node: node{"a/2", nil}}, wrong}
		if _, err := converge.Check(t.Context(), resources, ahead); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"a/1.service b/1.service", ""}, calls); diff != "" {
			t.Errorf("a check: %s", diff)
		}
		calls = nil
		g := startWith(t, converge.Config{Ahead: ahead, Now: func(resource string) { calls = append(calls, "apply "+resource) }})
		if err := g.Set(converge.Plan{Resources: resources}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if diff := cmp.Diff([]string{"a/1.service b/1.service", "", "apply b/1", ""}, calls); diff != "" {
			t.Errorf("a run: %s", diff)
		}
	})
}
