package providertest

import (
	"cmp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

func (r *run) resolveHardware(t *testing.T, p provider.Provider) {
	w := r.wish(t, p, 1)
	if first, second := r.resolve(t, p, w), r.resolve(t, r.New(t, r.cluster), w); !equal(first, second) {
		t.Errorf("the same wish came to %v, then to %v", first, second)
	}
	w.Hardware = &provisionrv1.Hardware{Cpus: 2, MemoryMib: 3000}
	choices := r.resolve(t, p, w)
	for _, c := range choices {
		if c.GetCpus() < 2 || c.GetMemoryMib() < 3000 {
			t.Errorf("2 processors and 3000 MiB came to %d and %d (%s)", c.GetCpus(), c.GetMemoryMib(), name(c))
		}
		if c.GetSpot() {
			t.Errorf("spot capacity was offered that nobody asked for: %v", c)
		}
		if c.GetPriceClass() == "" || c.GetImageName() == "" && c.GetImage() == "" {
			t.Errorf("nobody can tell what this choice is: %v", c)
		}
	}
	w.Hardware.Architecture = "arm64"
	if offer, err := p.Resolve(t.Context(), w); err != nil {
		wants(t, "Resolve for arm64", err, provider.Invalid)
	} else if a := offer.GetChoices()[0].GetArchitecture(); a != "arm64" {
		t.Errorf("arm64 came to %q", a)
	}
	if len(r.list(t, p)) != 0 {
		t.Error("Resolve made something")
	}
}

func equal(a, b []*provisionrv1.Choice) bool {
	return proto.Equal(&provisionrv1.Offer{Choices: a}, &provisionrv1.Offer{Choices: b})
}

func name(c *provisionrv1.Choice) string { return cmp.Or(c.GetTypeName(), c.GetType()) }

// resolveType takes machine types by name, in order, and refuses one that is misspelt.
func (r *run) resolveType(t *testing.T, p provider.Provider) {
	w := r.wish(t, p, 1)
	known := name(r.resolve(t, p, w)[0])
	if known == "" {
		t.Fatal("the provider has no machine types")
	}
	w.Hardware = &provisionrv1.Hardware{Types: []string{known}, Architecture: w.GetHardware().GetArchitecture()}
	for _, c := range r.resolve(t, p, w) {
		if name(c) != known {
			t.Errorf("type %s came to %s", known, name(c))
		}
	}
	w.Hardware.Types = []string{known[:len(known)-1]}
	r.typo(t, p, w, "a machine type", known)
}

func (r *run) typo(t *testing.T, p provider.Provider, w *provisionrv1.Wish, what, nearest string) {
	t.Helper()
	_, err := p.Resolve(t.Context(), w)
	if wants(t, "Resolve of "+what+" that is misspelt", err, provider.Invalid) && !strings.Contains(err.Error(), nearest) {
		t.Errorf("%q does not offer %s", err, nearest)
	}
}

func (r *run) resolveTypos(t *testing.T, p provider.Provider) {
	for _, typo := range r.Typos {
		w := r.wish(t, p, 1)
		typo.Change(w)
		r.typo(t, p, w, typo.Name, typo.Nearest)
	}
}

// resolveSpot wants spot capacity first, and any other just as a fallback.
func (r *run) resolveSpot(t *testing.T, p provider.Provider) {
	w := r.wish(t, p, 1)
	for _, c := range r.resolve(t, p, spot(w, false)) {
		if !c.GetSpot() {
			t.Errorf("a wish for spot capacity alone came to %v", c)
		}
	}
	choices := r.resolve(t, p, spot(w, true))
	if !choices[0].GetSpot() || choices[len(choices)-1].GetSpot() {
		t.Errorf("a wish for spot capacity with a fallback came to %v", choices)
	}
	fallen := false
	for _, c := range choices {
		if fallen && c.GetSpot() {
			t.Error("spot capacity comes after the fallback")
		}
		fallen = fallen || !c.GetSpot()
	}
}

func (r *run) resolveQuota(t *testing.T, p provider.Provider) {
	const room = 2
	r.Cloud.Quota(t, room)
	r.resolve(t, p, r.wish(t, p, room))
	_, err := p.Resolve(t.Context(), r.wish(t, p, room+1))
	wants(t, "Resolve of more machines than the quota allows", err, provider.QuotaExceeded)
}
