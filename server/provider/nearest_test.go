package provider_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/server/provider"
)

func TestNearest(t *testing.T) {
	types := []string{"m7i.large", "m7i.xlarge", "m7a.large", "c7i.large", "t3.micro", "t3.medium", "r7i.48xlarge"}
	regions := []string{"eu-central-1", "eu-central-2", "eu-west-1", "us-east-1", "us-west-2"}
	for _, test := range []struct {
		name       string
		candidates []string
		n          int
		want       []string
	}{
		{"m7i.lagre", types, 1, []string{"m7i.large"}},
		{"M7I.Large", types, 1, []string{"m7i.large"}},
		{"t3", types, 2, []string{"t3.micro", "t3.medium"}},
		{"eu-centrl-1", regions, 2, []string{"eu-central-1", "eu-central-2"}},
		{"eu-central", regions, 2, []string{"eu-central-1", "eu-central-2"}},
		{"zzzzzzzzzzzzz", regions, 3, nil},
		{"", regions, 3, nil},
		{"debian-12", nil, 3, nil},
		{"debian-12", []string{"debian-12", "debian-12"}, 3, []string{"debian-12"}},
		{"us-east-1", regions, 0, nil},
	} {
		if diff := cmp.Diff(test.want, provider.Nearest(test.name, test.candidates, test.n)); diff != "" {
			t.Errorf("%q among %q:\n%s", test.name, test.candidates, diff)
		}
	}
}

func TestNearestProperties(t *testing.T) {
	name := rapid.StringMatching(`[a-zA-Z0-9.é-]{0,12}`)
	rapid.Check(t, func(t *rapid.T) {
		wanted, candidates, n := name.Draw(t, "name"), rapid.SliceOf(name).Draw(t, "candidates"), rapid.IntRange(-1, 5).Draw(t, "n")
		got := provider.Nearest(wanted, candidates, n)
		if len(got) > max(0, n) {
			t.Fatalf("%d names instead of %d", len(got), n)
		}
		for _, g := range got {
			if !slices.Contains(candidates, g) {
				t.Fatalf("%q is no candidate", g)
			}
		}
		if n > 0 && wanted != "" && slices.Contains(candidates, wanted) && (len(got) == 0 || !slices.Contains(got, wanted)) && n >= len(candidates) {
			t.Fatalf("%q itself is not among %q", wanted, got)
		}
	})
}
