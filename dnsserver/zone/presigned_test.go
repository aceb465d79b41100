package zone_test

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// canonical compares names as RFC 4034 section 6.1 says: label by label from the right.
func canonical(a, b string) int {
	x, y := dns.SplitDomainName(a), dns.SplitDomainName(b)
	slices.Reverse(x)
	slices.Reverse(y)
	return slices.Compare(x, y)
}

// signature makes a record with the form of an RRSIG.
func signature(name string, covered zone.Type, origin string) zone.Record {
	data := binary.BigEndian.AppendUint16(nil, uint16(covered))
	data = append(data, 13, byte(dns.CountLabel(dns.Fqdn(name))))
	data = append(data, make([]byte, 14)...)
	data = append(data, named("x", zone.TypePTR, origin).Data...)
	return zone.Record{Name: name, Type: zone.TypeRRSIG, Data: append(data, make([]byte, 64)...)}
}

// signed returns the changes that give an unsigned zone signatures of no worth and a chain of NSEC records.
func signed(z *zone.Zone) []zone.Change {
	owners := map[string][]zone.Record{}
	for r := range z.All() {
		owners[r.Name] = append(owners[r.Name], r)
	}
	names := slices.SortedFunc(maps.Keys(owners), canonical)
	var changes []zone.Change
	for i, name := range names {
		change := zone.Change{Name: name}
		types := map[zone.Type]bool{zone.TypeNSEC: true}
		for _, r := range owners[name] {
			types[r.Type] = true
			if r.Type != zone.TypeSOA && r.Type != zone.TypeNS {
				change.Records = append(change.Records, r)
			}
		}
		next := named(name, zone.TypePTR, names[(i+1)%len(names)])
		change.Records = append(change.Records, zone.Record{Name: name, Type: zone.TypeNSEC, TTL: 10, Data: append(next.Data, 0, 1, 0x40)})
		for typ := range types {
			change.Records = append(change.Records, signature(name, typ, z.Origin()))
		}
		changes = append(changes, change)
	}
	return changes
}

func presigned(t rapid.TB, cfg zone.Config) *zone.Zone {
	t.Helper()
	cfg.Mode = zone.Presigned
	z := mustBuild(t, cfg)
	z, err := z.With(cfg.Serial, signed(z))
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestPresigned: answers of signed zones hold the signatures of all that they hold, and their denials prove what they
// say; without DO they are those of an unsigned zone.
func TestPresigned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(t)
		g.origins = g.origins[:1]
		cfg := g.config(t, g.origins[0])
		z := presigned(t, cfg)
		ref, s := newReference([]zone.Config{cfg}), mustSet(t, z)
		for range 20 {
			m := question(g.asked(t), g.typ(t))
			compare(t, ref, s, m)
			want := ref.answer(m.Question[0].Name, m.Question[0].Qtype)
			m.SetEdns0(4096, true)
			r := ask(t, s, m, true)
			if r.Rcode != want.Code {
				t.Fatalf("%s: code %d, want %d", m.Question[0].String(), r.Rcode, want.Code)
			}
			if r.Rcode != dns.RcodeRefused {
				assertSigned(t, r.Answer)
				assertSigned(t, r.Ns)
				assertSigned(t, r.Extra)
			}
			if len(want.Authority) > 0 {
				assertDenial(t, z, m, r)
			}
		}
	})
}

// assertSigned: every RRset has its signature, and every signature its RRset.
func assertSigned(t rapid.TB, section []dns.RR) {
	t.Helper()
	type key struct {
		name string
		typ  uint16
	}
	sets, sigs := map[key]bool{}, map[key]bool{}
	for _, rr := range section {
		name := dns.CanonicalName(rr.Header().Name)
		if sig, ok := rr.(*dns.RRSIG); ok {
			sigs[key{name, sig.TypeCovered}] = true
		} else if rr.Header().Rrtype != dns.TypeOPT {
			sets[key{name, rr.Header().Rrtype}] = true
		}
	}
	if !maps.Equal(sets, sigs) {
		t.Fatalf("sets %v, signatures %v", sets, sigs)
	}
}

// assertDenial checks the NSEC records of a negative answer as a validator does (RFC 4035 section 5.4).
func assertDenial(t rapid.TB, z *zone.Zone, m, r *dns.Msg) {
	t.Helper()
	name := dns.CanonicalName(m.Question[0].Name)
	for _, rr := range r.Answer {
		if alias, ok := rr.(*dns.CNAME); ok {
			name = dns.CanonicalName(alias.Target)
		}
	}
	var nsecs []*dns.NSEC
	for _, rr := range r.Ns {
		if nsec, ok := rr.(*dns.NSEC); ok {
			nsecs = append(nsecs, nsec)
		}
	}
	owners := map[string]bool{}
	for _, n := range nsecs {
		if owners[n.Hdr.Name] {
			t.Fatalf("%s twice", n)
		}
		owners[n.Hdr.Name] = true
	}
	covers := func(name string) bool {
		return slices.ContainsFunc(nsecs, func(n *dns.NSEC) bool {
			last := dns.CanonicalName(n.NextDomain) == z.Origin()
			return canonical(dns.CanonicalName(n.Hdr.Name), name) < 0 && (last || canonical(name, dns.CanonicalName(n.NextDomain)) < 0)
		})
	}
	matches := slices.ContainsFunc(nsecs, func(n *dns.NSEC) bool { return dns.CanonicalName(n.Hdr.Name) == name })
	if r.Rcode == dns.RcodeSuccess {
		if !matches && !covers(name) {
			t.Fatalf("no NSEC proves that %s has no such data: %v", name, nsecs)
		}
		return
	}
	encloser := name
	for exists := false; !exists; {
		_, encloser, _ = strings.Cut(encloser, ".")
		for rr := range z.All() {
			exists = exists || dns.IsSubDomain(encloser, rr.Name)
		}
	}
	if !covers(name) || !covers("*."+encloser) || len(nsecs) > 2 {
		t.Fatalf("no NSEC proves that there is no %s: %v", name, nsecs)
	}
}

// TestNeighbours compares with the whole list, sorted naively.
func TestNeighbours(t *testing.T) {
	cfg := sample()[0]
	cfg.Mode = zone.Presigned
	for _, name := range []string{"a", "b.a", "z.a", "a-", "a-b.a", "yljkjljk.a", "z", "zabc.a.z", "b.z", "0", "aa.b.z"} {
		cfg.Records = append(cfg.Records, zone.Text(name+".example.test", "x"))
	}
	z := mustBuild(t, cfg)
	var names []string
	for r := range z.All() {
		names = append(names, r.Name)
	}
	slices.SortFunc(names, canonical)
	names = slices.Compact(names)
	for i, name := range names {
		before, after := z.Neighbours(name)
		if want := names[(i+len(names)-1)%len(names)]; before != want {
			t.Errorf("before %s: %s, want %s", name, before, want)
		}
		if want := names[(i+1)%len(names)]; after != want {
			t.Errorf("after %s: %s, want %s", name, after, want)
		}
	}
	before, after := z.Neighbours("in.the.example.test")
	if canonical(before, "in.the.example.test.") >= 0 || after != "deep.in.the.example.test." {
		t.Errorf("neighbours of an empty name: %s, %s", before, after)
	}
}

// TestWildcardDenial: names around the wildcard that there might be.
func TestWildcardDenial(t *testing.T) {
	cfg := sample()[0]
	for _, name := range []string{"!", "*a", "+", "0", "!.zk-1", "*a.zk-1"} {
		cfg.Records = append(cfg.Records, zone.Text(name+".example.test", "x"))
	}
	z := presigned(t, cfg)
	s := mustSet(t, z)
	for _, name := range []string{"zz.example.test", "9.example.test", "x.y.zk-1.example.test", "a.!.zk-1.example.test", "*.example.test", "b.!.example.test"} {
		m := question(name, dns.TypeMX)
		m.SetEdns0(4096, true)
		assertDenial(t, z, m, ask(t, s, m, true))
	}
}

// TestOddQuestions: names that no zone can hold are covered all the same.
func TestOddQuestions(t *testing.T) {
	z := presigned(t, sample()[0])
	s := mustSet(t, z)
	for _, name := range []string{`\000.example.test.`, `\001\000zk.example.test.`, `zk-1\000.example.test.`, `\255.example.test.`, `a\.b.zk.example.test.`, `*.example.test.`} {
		m := question(name, dns.TypeA)
		m.SetEdns0(4096, true)
		r := ask(t, s, m, true)
		proofs := 0
		for _, rr := range r.Ns {
			if rr.Header().Rrtype == dns.TypeNSEC {
				proofs++
			}
		}
		if r.Rcode != dns.RcodeNameError || proofs == 0 {
			t.Errorf("%s: code %d, %d proofs", name, r.Rcode, proofs)
		}
	}
}

// TestOnline: a zone that signs online leaves to others what is to be signed, and nothing else.
func TestOnline(t *testing.T) {
	cfgs := sample()
	cfgs[0].Mode = zone.Online
	s := mustSet(t, mustBuild(t, cfgs[0]), mustBuild(t, cfgs[1]))
	m := question("zk-1.example.test", dns.TypeA)
	if _, _, outcome := respond(nil, pack(t, m), s, false); outcome != zone.Positive {
		t.Errorf("outcome %d without DO", outcome)
	}
	m.SetEdns0(1232, true)
	if _, _, outcome := respond(nil, pack(t, m), s, false); outcome != zone.Sign {
		t.Errorf("outcome %d with DO", outcome)
	}
}

// TestSignedDoesNotAllocate: denial and signatures included.
func TestSignedDoesNotAllocate(t *testing.T) {
	s := mustSet(t, presigned(t, sample()[0]))
	for _, name := range []string{"zk.example.test", "none.example.test", "store.example.test", "lost.example.test", "in.the.example.test", "_zk._tcp.zk.example.test"} {
		m := question(name, dns.TypeSRV)
		m.SetEdns0(1232, true)
		assertNoAllocation(t, s, name, pack(t, m), zone.Ask)
	}
}
