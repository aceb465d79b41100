package zone_test

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// contents is all records of a zone, sorted.
func contents(records iter.Seq[zone.Record]) []zone.Record {
	return slices.SortedFunc(records, func(a, b zone.Record) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), bytes.Compare(a.Data, b.Data))
	})
}

// assertSame compares a zone with one that was built at once.
func assertSame(t rapid.TB, want, got *zone.Zone) {
	t.Helper()
	if diff := gocmp.Diff(contents(want.All()), contents(got.All())); diff != "" {
		t.Fatalf("records (-want +got):\n%s", diff)
	}
	if want.Len() != got.Len() || want.Serial() != got.Serial() || want.Mode() != got.Mode() || want.Origin() != got.Origin() {
		t.Fatalf("%d names at %d, want %d at %d", got.Len(), got.Serial(), want.Len(), want.Serial())
	}
	for first := range got.All() {
		if first.Type != zone.TypeSOA {
			t.Fatalf("the first record is of type %d", first.Type)
		}
		break
	}
}

// model is what a zone is to have, by name.
type model map[string][]zone.Record

func (m model) config(origin string, serial uint32, mode zone.Signing) zone.Config {
	cfg := zone.Config{Origin: origin, Serial: serial, TTL: 30, Mode: mode, NS: []zone.NameServer{{Name: "ns." + origin}, {Name: "ns.elsewhere.test"}}}
	for _, records := range m {
		cfg.Records = append(cfg.Records, records...)
	}
	return cfg
}

// TestWithIsBuild: a zone after any changes is the one that is built of what they leave, in records, names and answers;
// and the one before is as it was.
func TestWithIsBuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(t)
		g.origins = []string{"z.test"}
		mode := rapid.SampledFrom([]zone.Signing{zone.Unsigned, zone.Presigned}).Draw(t, "mode")
		m := model{}
		for range rapid.IntRange(0, 5).Draw(t, "names") {
			name := dns.CanonicalName("x." + g.name.Draw(t, "name"))
			m[name] = g.records(t, name, 2)
		}
		z := mustBuild(t, m.config("z.test", 0, mode))
		for serial := range uint32(rapid.IntRange(1, 6).Draw(t, "versions")) {
			before, last := contents(z.All()), z
			var changes []zone.Change
			for range rapid.IntRange(0, 5).Draw(t, "changes") {
				name := g.name.Draw(t, "name")
				c := zone.Change{Name: name, Records: g.records(t, name, 2)}
				if dns.CanonicalName(name) == "z.test." {
					c.Records = slices.DeleteFunc(c.Records, func(r zone.Record) bool { return r.Type == zone.TypeCNAME })
				}
				changes = append(changes, c)
				m[dns.CanonicalName(name)] = c.Records
			}
			next, err := z.With(serial, changes)
			if err != nil {
				t.Fatal(err)
			}
			cfg := m.config("z.test", serial, mode)
			want := mustBuild(t, cfg)
			assertSame(t, want, next)
			ref, s := newReference([]zone.Config{cfg}), mustSet(t, next)
			for range 5 {
				compare(t, ref, s, question(g.asked(t), g.typ(t)))
			}
			for range 3 {
				name := g.name.Draw(t, "neighbour")
				assertNeighbours(t, want, next, name)
				if diff := gocmp.Diff(contents(want.Records(name)), contents(next.Records(name))); diff != "" {
					t.Fatalf("%s (-want +got):\n%s", name, diff)
				}
			}
			if diff := gocmp.Diff(before, contents(last.All())); diff != "" {
				t.Fatalf("the zone before changed (-want +got):\n%s", diff)
			}
			z = next
		}
	})
}

func assertNeighbours(t rapid.TB, want, got *zone.Zone, name string) {
	t.Helper()
	before, after := want.Neighbours(name)
	if b, a := got.Neighbours(name); a != after || b != before {
		t.Fatalf("neighbours of %s: %s and %s, want %s and %s", name, b, a, before, after)
	}
}

// TestWithGrowsAndShrinks goes from nothing to thousands of names and back, so that directories, shards and chunks are
// divided and put together.
func TestWithGrowsAndShrinks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	m := model{}
	z := mustBuild(t, m.config("z.test", 0, zone.Presigned))
	var serial uint32
	step := func(add bool, batch int) {
		serial++
		changes := make([]zone.Change, 0, batch)
		for range batch {
			n := rng.IntN(6000)
			c := zone.Change{Name: fmt.Sprintf("h-%d.p-%d.z.test", n, n%40)}
			if add {
				c.Records = []zone.Record{zone.Address(c.Name, address(n))}
				m[c.Name] = c.Records
			} else {
				delete(m, c.Name)
			}
			changes = append(changes, c)
		}
		next, err := z.With(serial, changes)
		if err != nil {
			t.Fatal(err)
		}
		z = next
	}
	check := func() {
		want := mustBuild(t, m.config("z.test", serial, zone.Presigned))
		assertSame(t, want, z)
		for range 200 {
			n := rng.IntN(6000)
			assertNeighbours(t, want, z, fmt.Sprintf("h-%d.p-%d.z.test", n, n%40))
		}
	}
	for _, batch := range []int{1, 7, 100, 3000} {
		for range 5000/batch + 2 {
			step(true, batch)
		}
		check()
		for range 9000/batch + 5 {
			step(false, batch)
		}
		check()
	}
	for name := range m {
		delete(m, name)
		next, err := z.With(serial, []zone.Change{{Name: name}})
		if err != nil {
			t.Fatal(err)
		}
		z = next
	}
	check()
}

// TestBuiltParents: names that exist for what is below them go with the last of it, also where they were built.
func TestBuiltParents(t *testing.T) {
	m := model{}
	for _, name := range []string{"a.p.z.test", "b.p.z.test", "c.q.p.z.test"} {
		m[name] = []zone.Record{zone.Text(name)}
	}
	z := mustBuild(t, m.config("z.test", 1, zone.Unsigned))
	for _, name := range []string{"b.p.z.test", "c.q.p.z.test", "a.p.z.test"} {
		delete(m, name)
		next, err := z.With(1, []zone.Change{{Name: name}})
		if err != nil {
			t.Fatal(err)
		}
		z = next
		assertSame(t, mustBuild(t, m.config("z.test", 1, zone.Unsigned)), z)
	}
}

func TestWithRefuses(t *testing.T) {
	z := mustBuild(t, sample()[0])
	tests := []struct {
		name   string
		change zone.Change
		want   string
	}{
		{"outside", zone.Change{Name: "a.other.test"}, "not within"},
		{"another's", zone.Change{Name: "a.example.test", Records: []zone.Record{zone.Text("b.example.test")}}, "not of the name"},
		{"two pointers", zone.Change{Name: "a.example.test", Records: []zone.Record{
			named("a.example.test", zone.TypePTR, "x."), named("a.example.test", zone.TypePTR, "y."),
		}}, "second PTR"},
		{"alias beside data", zone.Change{Name: "a.example.test", Records: []zone.Record{
			named("a.example.test", zone.TypeCNAME, "x."), zone.Text("a.example.test"),
		}}, "CNAME beside"},
		{"origin's servers", zone.Change{Name: "example.test", Records: []zone.Record{named("example.test", zone.TypeNS, "x.")}}, "delegation"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := z.With(8, []zone.Change{tt.change}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestSerial: the SOA in answers, positive and negative, follows.
func TestSerial(t *testing.T) {
	z, err := mustBuild(t, sample()[0]).With(4_000_000_000, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := mustSet(t, z)
	for _, name := range []string{"example.test", "none.example.test"} {
		r := ask(t, s, question(name, dns.TypeSOA), false)
		if soa := append(r.Answer, r.Ns...)[0].(*dns.SOA); soa.Serial != 4_000_000_000 {
			t.Errorf("%s: serial %d", name, soa.Serial)
		}
	}
}
