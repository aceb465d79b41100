package dnssec

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// tester is what the checks need of a test, a benchmark or a property.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

const testOrigin = "pool.example."

var testSigned = time.Date(2031, 5, 7, 11, 20, 0, 0, time.UTC)

func generate(t tester, origin string) *Key {
	t.Helper()
	k, err := Generate(origin)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newSigner(t tester, signed time.Time, keys ...KeyState) *Signer {
	t.Helper()
	s, err := New(Config{Keys: keys, Signed: signed})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// build makes a zone of plain records.
func build(t tester, mode zone.Signing, serial uint32, records ...zone.Record) *zone.Zone {
	t.Helper()
	z, err := zone.Build(zone.Config{
		Origin: testOrigin, Serial: serial, TTL: 300, NegativeTTL: 20, Mode: mode, Records: records,
		NS: []zone.NameServer{{Name: "ns1." + testOrigin, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func signAll(t tester, s *Signer, base, former *zone.Zone) *zone.Zone {
	t.Helper()
	changes, err := s.SignAll(testContext(t), base, former)
	if err != nil {
		t.Fatal(err)
	}
	z, err := base.With(base.Serial(), changes)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func sign(t tester, s *Signer, base *zone.Zone, serial uint32, plain ...zone.Change) *zone.Zone {
	t.Helper()
	changes, err := s.Sign(testContext(t), base, serial, plain)
	if err != nil {
		t.Fatal(err)
	}
	z, err := base.With(serial, changes)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// toRR makes the record of the reference library.
func toRR(t tester, r zone.Record) dns.RR {
	t.Helper()
	wire, err := zone.AppendName(nil, r.Name)
	if err != nil {
		t.Fatal(err)
	}
	wire = binary.BigEndian.AppendUint16(wire, uint16(r.Type))
	wire = binary.BigEndian.AppendUint16(wire, classIN)
	wire = binary.BigEndian.AppendUint32(wire, r.TTL)
	wire = binary.BigEndian.AppendUint16(wire, uint16(len(r.Data)))
	rr, end, err := dns.UnpackRR(append(wire, r.Data...), 0)
	if err != nil || end != len(wire)+len(r.Data) {
		t.Fatalf("record %s type %d: %v", r.Name, r.Type, err)
	}
	return rr
}

// contents returns the records of a zone in an order of its own.
func contents(z *zone.Zone) []zone.Record {
	return slices.SortedFunc(z.All(), func(a, b zone.Record) int {
		if n := strings.Compare(a.Name, b.Name); n != 0 {
			return n
		}
		if a.Type != b.Type {
			return int(a.Type) - int(b.Type)
		}
		return bytes.Compare(a.Data, b.Data)
	})
}

func equalZones(t tester, got, want *zone.Zone) {
	t.Helper()
	if diff := cmp.Diff(contents(want), contents(got)); diff != "" {
		t.Fatalf("zones differ (-want +got):\n%s", diff)
	}
}

// checkZone checks a signed zone against the reference library, and its chain against the RFC, at a time.
func checkZone(t tester, z *zone.Zone, now time.Time, active *Key, others ...*Key) {
	t.Helper()
	sets := map[string]map[uint16][]dns.RR{}
	sigs := map[string]map[uint16][]*dns.RRSIG{}
	for r := range z.All() {
		rr := toRR(t, r)
		if sets[r.Name] == nil {
			sets[r.Name], sigs[r.Name] = map[uint16][]dns.RR{}, map[uint16][]*dns.RRSIG{}
		}
		if sig, ok := rr.(*dns.RRSIG); ok {
			sigs[r.Name][sig.TypeCovered] = append(sigs[r.Name][sig.TypeCovered], sig)
		} else {
			sets[r.Name][rr.Header().Rrtype] = append(sets[r.Name][rr.Header().Rrtype], rr)
		}
	}
	keys := map[uint16]*dns.DNSKEY{}
	for _, k := range append(others, active) {
		keys[k.Tag()] = toRR(t, k.DNSKEY()).(*dns.DNSKEY)
	}
	if n := len(sets[z.Origin()][dns.TypeDNSKEY]); n != len(keys) {
		t.Errorf("%d DNSKEY records, want %d", n, len(keys))
	}
	for owner, types := range sets {
		for typ, set := range types {
			var by []uint16
			for _, sig := range sigs[owner][typ] {
				if err := sig.Verify(keys[sig.KeyTag], set); err != nil || !sig.ValidityPeriod(now) {
					t.Errorf("%s %s: signature of %d does not hold: %v", owner, dns.TypeToString[typ], sig.KeyTag, err)
				}
				if sig.Hdr.Ttl != set[0].Header().Ttl || sig.OrigTtl != sig.Hdr.Ttl {
					t.Errorf("%s %s: TTLs %d, %d and %d", owner, dns.TypeToString[typ], set[0].Header().Ttl, sig.Hdr.Ttl, sig.OrigTtl)
				}
				by = append(by, sig.KeyTag)
			}
			want := []uint16{active.Tag()}
			if isOfKeys(zone.Type(typ)) {
				for _, k := range others {
					want = append(want, k.Tag())
				}
			}
			slices.Sort(by)
			slices.Sort(want)
			if !slices.Equal(by, want) {
				t.Errorf("%s %s: signed by %v, want %v", owner, dns.TypeToString[typ], by, want)
			}
		}
	}
	checkChain(t, z.Origin(), sets)
}

// checkChain checks that the NSEC records are a ring of all names in canonical order, and name their types.
func checkChain(t tester, origin string, sets map[string]map[uint16][]dns.RR) {
	t.Helper()
	var names []string
	for name := range sets {
		names = append(names, name)
	}
	slices.SortFunc(names, canonical)
	if names[0] != origin {
		t.Fatalf("the first name is %s", names[0])
	}
	for i, name := range names {
		set := sets[name][dns.TypeNSEC]
		if len(set) != 1 {
			t.Errorf("%s has %d NSEC records", name, len(set))
			continue
		}
		nsec := set[0].(*dns.NSEC)
		if want := names[(i+1)%len(names)]; nsec.NextDomain != want {
			t.Errorf("%s is followed by %s, want %s", name, nsec.NextDomain, want)
		}
		types := []uint16{dns.TypeRRSIG}
		for typ := range sets[name] {
			types = append(types, typ)
		}
		slices.Sort(types)
		if !slices.Equal(types, nsec.TypeBitMap) {
			t.Errorf("%s has types %v, says %v", name, types, nsec.TypeBitMap)
		}
		if soa := sets[origin][dns.TypeSOA][0].(*dns.SOA); nsec.Hdr.Ttl != min(soa.Minttl, soa.Hdr.Ttl) {
			t.Errorf("%s: TTL of NSEC is %d", name, nsec.Hdr.Ttl)
		}
	}
}

// canonical compares names as RFC 4034 section 6.1 says, label by label from the last.
func canonical(a, b string) int {
	x, y := dns.SplitDomainName(a), dns.SplitDomainName(b)
	slices.Reverse(x)
	slices.Reverse(y)
	return slices.Compare(x, y)
}
