package converge_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/internal/errs"
)

// node is a resource that only has an order.
type node struct {
	name  string
	after []string
}

func (n node) Name() string                                 { return n.name }
func (n node) After() []string                              { return n.after }
func (n node) Check(context.Context) (converge.Diff, error) { return converge.Diff{}, nil }
func (n node) Apply(context.Context) error                  { return nil }

func names(resources []converge.Resource) []string {
	var out []string
	for _, r := range resources {
		out = append(out, r.Name())
	}
	return out
}

func TestOrder(t *testing.T) {
	tests := []struct {
		name  string
		nodes []converge.Resource
		want  []string
		err   string
	}{
		{"empty", nil, nil, ""},
		{"given order is kept", []converge.Resource{node{"b/1", nil}, node{"a/1", nil}}, []string{"b/1", "a/1"}, ""},
		{"by name", []converge.Resource{node{"b/1", []string{"a/1"}}, node{"a/2", nil}, node{"a/1", nil}}, []string{"a/2", "a/1", "b/1"}, ""},
		{"by kind", []converge.Resource{node{"b/1", []string{"a"}}, node{"a/2", nil}, node{"a/1", nil}}, []string{"a/2", "a/1", "b/1"}, ""},
		{"absent ones are ignored", []converge.Resource{node{"b/1", []string{"x", "x/1"}}, node{"a/1", nil}}, []string{"b/1", "a/1"}, ""},
		{"name with slashes", []converge.Resource{node{"service/s", []string{"file//etc/motd"}}, node{"file//etc/motd", nil}}, []string{"file//etc/motd", "service/s"}, ""},
		{"own kind does not mean itself", []converge.Resource{node{"a/1", []string{"a"}}, node{"a/2", nil}}, []string{"a/2", "a/1"}, ""},
		{"itself by name", []converge.Resource{node{"a/1", []string{"a/1"}}}, nil, "a/1 -> a/1"},
		{"cycle", []converge.Resource{node{"x/1", []string{"a/1"}}, node{"a/1", []string{"b/1"}}, node{"b/1", []string{"c"}}, node{"c/1", []string{"a/1"}}}, nil, "a/1 -> b/1 -> c/1 -> a/1"},
		{"twice", []converge.Resource{node{"a/1", nil}, node{"a/1", nil}}, nil, "a/1 comes twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := converge.Order(tt.nodes)
			if tt.err != "" {
				if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, names(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestOrderProperties draws graphs without cycles: edges lead to resources that come earlier in a hidden order.
func TestOrderProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 30).Draw(t, "n")
		hidden := make([]node, n)
		for i := range hidden {
			hidden[i].name = fmt.Sprintf("k%d/%d", i%5, i)
			for _, j := range rapid.SliceOfN(rapid.IntRange(0, max(0, i-1)), 0, 4).Draw(t, "after") {
				if j < i {
					hidden[i].after = append(hidden[i].after, hidden[j].name)
				}
			}
		}
		given := make([]converge.Resource, 0, n)
		for _, node := range rapid.Permutation(hidden).Draw(t, "given") {
			given = append(given, node)
		}
		ordered, err := converge.Order(given)
		if err != nil {
			t.Fatal(err)
		}
		got := names(ordered)
		if a, b := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(names(given))); !slices.Equal(a, b) {
			t.Fatalf("not a permutation: %v of %v", a, b)
		}
		placed := make(map[string]bool)
		for i, r := range ordered {
			for _, after := range r.(node).after {
				if !placed[after] {
					t.Fatalf("%s comes before %s", r.Name(), after)
				}
			}
			placed[r.Name()] = true
			// Stable: no resource that was given earlier and was free to come now comes later.
			for _, later := range ordered[i+1:] {
				free := !slices.ContainsFunc(later.(node).after, func(a string) bool { return !placed[a] || a == r.Name() })
				if free && slices.Index(names(given), later.Name()) < slices.Index(names(given), r.Name()) {
					t.Fatalf("%s was free before %s and given earlier", later.Name(), r.Name())
				}
			}
		}
		again, err := converge.Order(ordered)
		if err != nil || !slices.Equal(names(again), got) {
			t.Fatalf("ordering an ordered list changed it: %v, %v", names(again), err)
		}
	})
}
