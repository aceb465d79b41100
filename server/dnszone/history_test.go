package dnszone_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/dnssec"
	"github.com/provisionr/provisionr/dnsserver/zone"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// signing has one key for each zone that asks for one.
type signing struct {
	t    fataler
	keys map[string]*dnssec.Key
}

func (k *signing) key(origin string) *dnssec.Key {
	if k.keys[origin] == nil {
		key, err := dnssec.Generate(origin)
		if err != nil {
			k.t.Fatalf("key: %v", err)
		}
		k.keys[origin] = key
	}
	return k.keys[origin]
}

func (k *signing) states(origin string) []dnssec.KeyState {
	return []dnssec.KeyState{{Key: k.key(origin), State: dnssec.Active}}
}

func (k *signing) Mode(_ *state.Snapshot, _ string, wanted zone.Signing) zone.Signing { return wanted }

func (k *signing) Signer(_ *state.Snapshot, origin string) (dnszone.Signer, error) {
	return dnssec.New(dnssec.Config{Keys: k.states(origin), Signed: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)})
}

func (k *signing) Keys(_ *state.Snapshot, origin string) []zone.Record {
	return dnssec.KeyRecords(origin, k.states(origin))
}

// whole builds the zones of a snapshot as a server does that has just started.
func (k *signing) whole(t fataler, s *state.Snapshot) []*zone.Zone {
	zones, err := dnszone.Build(s, dnszone.Config{Signing: k})
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	for i, z := range zones {
		if z.Mode() != zone.Presigned {
			continue
		}
		signer, err := k.Signer(s, strings.TrimSuffix(z.Origin(), "."))
		if err != nil {
			t.Fatalf("signer: %v", err)
		}
		changes, err := signer.SignAll(context.Background(), z, nil)
		if err == nil {
			zones[i], err = z.With(z.Serial(), changes)
		}
		if err != nil {
			t.Fatalf("sign: %v", err)
		}
	}
	return zones
}

// contents returns what zones have, without the serials where these are not asked for.
func contents(zones []*zone.Zone, serials bool) []string {
	var out []string
	for _, z := range zones {
		out = append(out, fmt.Sprintf("%s mode %d names %d", z.Origin(), z.Mode(), z.Len()))
		for r := range z.All() {
			if plain := r.Type != zone.TypeSOA && r.Type != zone.TypeRRSIG; serials || plain {
				out = append(out, fmt.Sprintf("%s %s %d %d %x", z.Origin(), r.Name, r.Type, r.TTL, r.Data))
			}
		}
	}
	slices.Sort(out)
	return out
}

// checker follows a publisher.
type checker struct {
	t      *rapid.T
	deltas map[string]bool
	zones  []*zone.Zone
	set    int
}

// Set has the next version of all zones answered.
func (c *checker) Set(zones []*zone.Zone) error {
	for _, z := range zones {
		for _, before := range c.zones {
			if before.Origin() == z.Origin() && !c.deltas[z.Origin()] {
				c.t.Fatalf("%s is answered before its delta is told", z.Origin())
			}
		}
		if int32(z.Serial()-zones[0].Serial()) != 0 {
			c.t.Fatalf("serials %d and %d", z.Serial(), zones[0].Serial())
		}
	}
	for _, before := range c.zones {
		if !c.deltas[before.Origin()] {
			c.t.Fatalf("%s goes before that is told", before.Origin())
		}
	}
	if len(c.zones) > 0 && int32(zones[0].Serial()-c.zones[0].Serial()) < 0 {
		c.t.Fatalf("serial %d after %d", zones[0].Serial(), c.zones[0].Serial())
	}
	c.zones, c.deltas = zones, map[string]bool{}
	c.set++
	return nil
}

// delta checks that what differs is named.
func (c *checker) delta(from, to *zone.Zone, names []string) {
	c.deltas[from.Origin()] = true
	if names == nil || to == nil {
		return
	}
	owners := map[string]bool{}
	for _, z := range []*zone.Zone{from, to} {
		for r := range z.All() {
			owners[r.Name] = true
		}
	}
	of := func(z *zone.Zone, name string) string { return fmt.Sprint(slices.Collect(z.Records(name))) }
	for name := range owners {
		named := name == to.Origin() || slices.ContainsFunc(names, func(n string) bool { return strings.TrimSuffix(n, ".")+"." == name })
		if !named && of(from, name) != of(to, name) {
			c.t.Fatalf("%s differs and is not named", name)
		}
	}
}

// checkPointers checks that each address of a machine's name has one pointer at most, and that to the name.
func checkPointers(t *rapid.T, s *state.Snapshot, zones []*zone.Zone) {
	pointers := map[string][]string{}
	for _, z := range zones {
		for r := range z.All() {
			if r.Type == zone.TypePTR {
				pointers[r.Name] = append(pointers[r.Name], zone.TextName(r.Data))
			}
		}
	}
	for slot := range s.Slots() {
		for _, addr := range dnszone.Addresses(s, s.Machine(slot.GetHolder())) {
			all := pointers[zone.ReverseName(addr)]
			if addr.Is4() && netip.MustParsePrefix("10.99.0.0/24").Contains(addr) {
				for _, origin := range []string{"0/26.0.99.10.in-addr.arpa.", "64/26.0.99.10.in-addr.arpa."} {
					all = append(all, pointers[fmt.Sprintf("%d.%s", addr.As4()[3], origin)]...)
				}
			}
			if len(all) > 1 || len(all) == 1 && all[0] != slot.GetFqdn()+"." {
				t.Fatalf("%s of %s points to %v", addr, slot.GetFqdn(), all)
			}
			if len(all) == 0 && netip.MustParsePrefix("10.88.0.0/16").Contains(addr) {
				t.Fatalf("%s of %s has no pointer", addr, slot.GetFqdn())
			}
		}
	}
}

// TestHistories applies random logs, with restores of earlier states. Published version by version or several at a time, the
// zones are what building them anew gives, octet by octet; serials go on; and what is different has another serial.
func TestHistories(t *testing.T) {
	anew, partial := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		keys := &signing{t: t, keys: map[string]*dnssec.Key{}}
		c := &checker{t: t, deltas: map[string]bool{}}
		p, err := dnszone.NewPublisher(dnszone.PublisherConfig{
			State: w.store, Answers: c, Logger: slog.New(slog.DiscardHandler), Zones: dnszone.Config{Signing: keys}, Delta: c.delta,
		})
		if err != nil {
			t.Fatal(err)
		}
		publish := func() bool {
			whole, err := p.Publish(t.Context(), w.store.Read())
			if err != nil {
				t.Fatalf("publish: %v", err)
			}
			return whole
		}
		var plain []string
		var serial uint32
		for range rapid.IntRange(1, 60).Draw(t, "entries") {
			switch rapid.IntRange(0, 40).Draw(t, "what") {
			case 0:
				w.save()
			case 1:
				w.restore(func() { publish() })
			default:
				var batch []*raftlogv1.Command
				for range rapid.IntRange(1, 3).Draw(t, "batch") {
					batch = append(batch, drawCommand(t, w.store.Read()))
				}
				w.apply(batch...)
			}
			s := w.store.Read()
			zones, err := dnszone.Build(s, dnszone.Config{})
			if err != nil {
				t.Fatalf("build: %v", err)
			}
			now, at := contents(zones, false), dnszone.Serial(s.Cluster())
			if at == serial && !slices.Equal(now, plain) {
				t.Fatalf("other records under the serial %d:\n%s", at, cmp.Diff(plain, now))
			}
			plain, serial = now, at
			if rapid.IntRange(0, 3).Draw(t, "later") == 0 {
				continue
			}
			if publish() {
				anew++
			} else {
				partial++
			}
			if diff := cmp.Diff(contents(keys.whole(t, s), true), contents(c.zones, true)); diff != "" {
				t.Fatalf("published is not what is built (-built +published):\n%s", diff)
			}
			checkPointers(t, s, c.zones)
		}
	})
	if partial < anew {
		t.Errorf("of %d versions %d were built anew", anew+partial, anew)
	}
}

// TestGroups: whoever comes and goes, the names are shared by the same ready slots as if all had been looked at.
func TestGroups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const slots = 160
		ready := map[string]bool{}
		g := &dnszone.Group{}
		naive := func() *dnszone.Group {
			g := &dnszone.Group{}
			for slot := range ready {
				g.Set(slot, true)
			}
			return g
		}
		share := rapid.IntRange(1, 9).Draw(t, "share")
		for range rapid.IntRange(1, 600).Draw(t, "steps") {
			slot := fmt.Sprintf("a-%d", rapid.IntRange(1, slots).Draw(t, "slot"))
			before := g.Shared()
			if rapid.IntRange(0, 9).Draw(t, "ready") < share {
				ready[slot] = true
			} else {
				delete(ready, slot)
			}
			touched, unknown := g.Set(slot, ready[slot])
			if unknown {
				g = naive()
			}
			after := g.Shared()
			if !slices.Equal(after, naive().Shared()) {
				t.Fatalf("shared by %v, want %v", after, naive().Shared())
			}
			if !touched && !unknown && (!slices.Equal(before, after) || slices.Contains(after, slot)) {
				t.Fatalf("%s does not touch, and %v are %v now", slot, before, after)
			}
		}
	})
}
