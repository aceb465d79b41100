package transfer_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

func now() time.Time { return time.Now() }

// secondary is a model of one: it applies what it gets to a set of records, and takes nothing that does not fit.
type secondary struct {
	serial  uint32
	records map[string]bool
}

func serialOf(rr dns.RR) uint32 { return rr.(*dns.SOA).Serial }

// apply takes the answer to AXFR or IXFR (RFC 1995 section 4) and returns which it was.
func (s *secondary) apply(t fataler, answer []dns.RR) string {
	t.Helper()
	if len(answer) == 0 || answer[0].Header().Rrtype != dns.TypeSOA {
		t.Fatalf("answer begins with no SOA: %v", answer)
	}
	last := answer[len(answer)-1]
	if len(answer) == 1 {
		if serialOf(answer[0]) != s.serial {
			t.Fatalf("SOA alone, but %d is not %d", serialOf(answer[0]), s.serial)
		}
		return "SOA"
	}
	if last.String() != answer[0].String() {
		t.Fatalf("begins with %v, ends with %v", answer[0], last)
	}
	if answer[1].Header().Rrtype != dns.TypeSOA {
		s.records = map[string]bool{}
		for _, rr := range answer[:len(answer)-1] {
			s.add(t, rr)
		}
		s.serial = serialOf(last)
		return "AXFR"
	}
	adding := true
	for _, rr := range answer[1 : len(answer)-1] {
		if rr.Header().Rrtype == dns.TypeSOA {
			adding = !adding
			if !adding && serialOf(rr) != s.serial {
				t.Fatalf("difference from %d, not %d", serialOf(rr), s.serial)
			}
			s.serial = serialOf(rr)
		}
		if adding {
			s.add(t, rr)
		} else {
			s.remove(t, rr)
		}
	}
	if s.serial != serialOf(last) {
		t.Fatalf("differences end at %d, not %d", s.serial, serialOf(last))
	}
	return "IXFR"
}

func (s *secondary) add(t fataler, rr dns.RR) {
	t.Helper()
	if s.records[rr.String()] {
		t.Fatalf("has %v already", rr)
	}
	s.records[rr.String()] = true
}

func (s *secondary) remove(t fataler, rr dns.RR) {
	t.Helper()
	if !s.records[rr.String()] {
		t.Fatalf("does not have %v", rr)
	}
	delete(s.records, rr.String())
}

func (s *secondary) check(t fataler, z *zone.Zone) {
	t.Helper()
	var records []string
	for text := range s.records {
		records = append(records, text)
	}
	slices.Sort(records)
	if diff := cmp.Diff(content(t, z), records); diff != "" || s.serial != z.Serial() {
		t.Fatalf("the copy of serial %d has serial %d (-zone +copy):\n%s", z.Serial(), s.serial, diff)
	}
}

var ownerNames = []string{"a", "b", "Deep.c", "c", "very.long.and.deep.name.indeed", "ns", "_http._tcp.c", "@"}

// genChange draws all records that one owner has from then on.
func genChange(t *rapid.T) zone.Change {
	name := rapid.SampledFrom(ownerNames).Draw(t, "name") + "." + origin
	if name == "@."+origin {
		name = origin
	}
	c := zone.Change{Name: name}
	ttl := rapid.SampledFrom([]uint32{0, 5, 600}).Draw(t, "ttl")
	add := func(r zone.Record) {
		r.TTL = ttl
		c.Records = append(c.Records, r)
	}
	number := rapid.IntRange(0, 3)
	if name != origin {
		for range number.Draw(t, "addresses") {
			add(zone.Address(name, netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "address")})))
		}
	}
	for range number.Draw(t, "texts") {
		add(zone.Text(name, rapid.StringMatching(`[a-z]{1,300}`).Draw(t, "text")))
	}
	if len(c.Records) > 0 && rapid.Bool().Draw(t, "signature") {
		data := append([]byte{0, byte(c.Records[0].Type)}, make([]byte, 16)...)
		add(zone.Record{Name: name, Type: zone.TypeRRSIG, Data: append(data, "\x07example\x04test\x00signature"...)})
	}
	if rapid.Bool().Draw(t, "service") {
		r, err := zone.Service(name, 0, 1, rapid.Uint16().Draw(t, "port"), "a."+origin)
		if err != nil {
			t.Fatal(err)
		}
		add(r)
	}
	return c
}

// A secondary that follows by whatever it is given always ends up with the zone, octet for octet.
func TestFollow(t *testing.T) {
	kinds := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		z := newZone(t, zone.Config{Serial: rapid.SampledFrom([]uint32{1, 1<<31 - 6, 1<<32 - 1000}).Draw(t, "serial")})
		w := newWorld(t, transfer.Config{JournalSize: rapid.SampledFrom([]int{600, 3000, 0}).Draw(t, "journal")}, z)
		var copies [2]secondary
		step := func(names func(changes []zone.Change) []string, told bool) func(*rapid.T) {
			return func(t *rapid.T) {
				changes := rapid.SliceOfNDistinct(rapid.Custom(genChange), 1, 4, func(c zone.Change) string { return c.Name }).Draw(t, "changes")
				next, err := z.With(z.Serial()+rapid.Uint32Range(1, 3).Draw(t, "step"), changes)
				if err != nil {
					t.Fatal(err)
				}
				if told {
					w.Delta(z, next, names(changes))
				}
				z = next
				w.set(z)
			}
		}
		exact := func(changes []zone.Change) []string {
			names := []string{"nothing." + origin, origin} // Names that did not change, and twice the same, do no harm.
			for _, c := range changes {
				names = append(names, c.Name, c.Name)
			}
			return names
		}
		follow := func(query func(serial uint32) *dns.Msg) func(*rapid.T) {
			return func(t *rapid.T) {
				c := &copies[rapid.IntRange(0, len(copies)-1).Draw(t, "copy")]
				q := axfr()
				if c.records != nil {
					q = query(c.serial)
				}
				kinds[c.apply(t, w.fetch(t, q))]++
				c.check(t, z)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"change":          step(exact, true),
			"changeMore":      step(exact, true),
			"changeSomewhere": step(func([]zone.Change) []string { return nil }, true),
			"changeUntold":    step(nil, false),
			"ixfr":            follow(ixfr),
			"ixfrMore":        follow(ixfr),
			"axfr":            follow(func(uint32) *dns.Msg { return axfr() }),
			"restart": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					w = newWorld(t, transfer.Config{}, z)
				}
			},
		})
	})
	for _, kind := range []string{"SOA", "AXFR", "IXFR"} {
		if kinds[kind] == 0 {
			t.Errorf("no answer was %s: %v", kind, kinds)
		}
	}
}

// A transfer is of one version, even where the zone changes while it is sent; and a large zone arrives whole.
func TestLarge(t *testing.T) {
	var records []zone.Record
	for i := range 5000 {
		name := fmt.Sprintf("host-%d.Pool-%d.%s", i, i/3, origin) // So many pools that most are behind what pointers reach.
		records = append(records, zone.Address(name, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})), zone.Text(name, "os=debian"))
	}
	first := newZone(t, zone.Config{Serial: 7, Records: records})
	w := newWorld(t, transfer.Config{}, first)
	query, session := signed(t, newKey(t, keyName), axfr())
	var copied secondary
	var answer []dns.RR
	messages, octets := 0, 0
	err := w.Special(t.Context(), netip.AddrPort{}, query, true, nil, func(msg []byte) error {
		w.set(newZone(t, zone.Config{Serial: 8}))
		messages, octets = messages+1, octets+len(msg)
		stripped, err := session.Accept(msg, now())
		if err == nil {
			answer = append(answer, unpack(t, stripped).Answer...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	copied.apply(t, answer)
	copied.check(t, first)
	if messages < 2 || messages > 20 || octets > len(answer)*36 {
		t.Errorf("%d records in %d messages of %d octets", len(answer), messages, octets)
	}
}
