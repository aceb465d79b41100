package dnssec

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// onlineZones returns a set with a zone that is signed online, one beside it, and who signs.
func onlineZones(t tester, keys ...KeyState) (*zone.Set, *Online) {
	t.Helper()
	away, err := zone.Named("away."+testOrigin, zone.TypeCNAME, "host.other.example.")
	if err != nil {
		t.Fatal(err)
	}
	loop, err := zone.Named("loop."+testOrigin, zone.TypeCNAME, "loop."+testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	lost, err := zone.Named("lost."+testOrigin, zone.TypeCNAME, "nowhere."+testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	big := zone.Text("big."+testOrigin, strings.Repeat("x", 1500))
	records := append(sample(t), append(KeyRecords(testOrigin, keys), away, loop, lost, big)...)
	other, err := zone.Build(zone.Config{
		Origin: "other.example", Serial: 1, TTL: 60, NS: []zone.NameServer{{Name: "ns.other.example"}},
		Records: []zone.Record{address("host.other.example", "192.0.2.99")},
	})
	if err != nil {
		t.Fatal(err)
	}
	set, err := zone.NewSet([]*zone.Zone{build(t, zone.Online, 7, records...), other})
	if err != nil {
		t.Fatal(err)
	}
	o := NewOnline(OnlineConfig{CacheSize: 64})
	if err := o.SetKeys(keys); err != nil {
		t.Fatal(err)
	}
	return set, o
}

func question(name string, typ uint16, size uint16, compact bool) *dns.Msg {
	m := new(dns.Msg).SetQuestion(name, typ)
	m.SetEdns0(size, true)
	if compact {
		m.IsEdns0().Hdr.Ttl |= flagCO << 8
	}
	return m
}

// ask returns the answer, checked for its form: every set of the answer and the authority has a signature that holds.
func ask(t tester, o *Online, set *zone.Set, m *dns.Msg, tcp bool, keys ...*Key) *dns.Msg {
	t.Helper()
	query, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var q zone.Query
	if zone.Parse(query, &q); m.Question[0].Qtype != uint16(typeNXNAME) {
		if _, outcome := set.Answer(nil, &q, &zone.Reply{Max: zone.MaxMessage}); outcome != zone.Sign {
			t.Fatalf("%s: outcome %d", m.Question[0].Name, outcome)
		}
	}
	out := o.Answer(testContext(t), set, query, tcp)
	a := new(dns.Msg)
	if err := a.Unpack(out); err != nil {
		t.Fatalf("%s: %v in %x", m.Question[0].Name, err, out)
	}
	if limit := min(m.IsEdns0().UDPSize(), zone.MaxUDP); !tcp && len(out) > int(max(limit, 512)) {
		t.Errorf("%d octets, want at most %d", len(out), limit)
	}
	opt := a.IsEdns0()
	if a.Id != m.Id || !a.Response || opt == nil || !opt.Do() || a.Extra[len(a.Extra)-1] != dns.RR(opt) || a.Question[0] != m.Question[0] {
		t.Errorf("malformed answer:\n%s", a)
	}
	for _, section := range [][]dns.RR{a.Answer, a.Ns} {
		checkSection(t, section, keys...)
	}
	return a
}

func checkSection(t tester, section []dns.RR, keys ...*Key) {
	t.Helper()
	for _, rr := range section {
		h := rr.Header()
		if h.Rrtype == dns.TypeRRSIG {
			continue
		}
		var set []dns.RR
		good := 0
		for _, other := range section {
			if o := other.Header(); o.Name == h.Name && o.Rrtype == h.Rrtype {
				set = append(set, dns.Copy(other))
			}
		}
		for _, other := range section {
			sig, ok := other.(*dns.RRSIG)
			if !ok || sig.Hdr.Name != h.Name || sig.TypeCovered != h.Rrtype {
				continue
			}
			if want := dns.CountLabel(strings.TrimPrefix(h.Name, "*.")); int(sig.Labels) != want {
				t.Errorf("%s: %d labels, want %d", h.Name, sig.Labels, want)
			}
			for _, k := range keys {
				if k.Tag() == sig.KeyTag && sig.Verify(toRR(t, k.DNSKEY()).(*dns.DNSKEY), set) == nil && sig.ValidityPeriod(time.Now()) {
					good++
				}
			}
		}
		if good == 0 || isOfKeys(zone.Type(h.Rrtype)) && good != len(keys) {
			t.Errorf("%s: %d signatures hold", h, good)
		}
	}
}

// shape says what an answer is, in one line.
func shape(a *dns.Msg) string {
	list := func(section []dns.RR) string {
		var types []string
		for _, rr := range section {
			if sig, ok := rr.(*dns.RRSIG); ok {
				types = append(types, "RRSIG("+dns.TypeToString[sig.TypeCovered]+")")
			} else {
				types = append(types, dns.TypeToString[rr.Header().Rrtype])
			}
		}
		return strings.Join(types, " ")
	}
	return fmt.Sprintf("%s | %s | %s", dns.RcodeToString[a.Rcode], list(a.Answer), list(a.Ns))
}

const denied = "NOERROR |  | SOA RRSIG(SOA) NSEC RRSIG(NSEC)"

func TestOnline(t *testing.T) {
	k := generate(t, testOrigin)
	set, o := onlineZones(t, KeyState{k, Active})
	for _, c := range []struct {
		name string
		typ  uint16
		want string
		// types are what the NSEC record says.
		types []uint16
	}{
		{"web-1", dns.TypeA, "NOERROR | A RRSIG(A) | ", nil},
		{"WEB-1", dns.TypeAAAA, "NOERROR | AAAA RRSIG(AAAA) | ", nil},
		{"web", dns.TypeA, "NOERROR | A A RRSIG(A) | ", nil},
		{"web-1", dns.TypeMX, denied, []uint16{dns.TypeA, dns.TypeTXT, dns.TypeAAAA, dns.TypeSSHFP, dns.TypeRRSIG, dns.TypeNSEC}},
		{"nowhere", dns.TypeA, denied, []uint16{dns.TypeRRSIG, dns.TypeNSEC, 128}},
		{"x.y.web-1", dns.TypeA, denied, []uint16{dns.TypeRRSIG, dns.TypeNSEC, 128}},
		{"*", dns.TypeA, denied, []uint16{dns.TypeRRSIG, dns.TypeNSEC, 128}},
		{`web-1\.x`, dns.TypeA, denied, []uint16{dns.TypeRRSIG, dns.TypeNSEC, 128}},
		{`a\.b.c`, dns.TypeA, denied, []uint16{dns.TypeRRSIG, dns.TypeNSEC, 128}},
		{"b.c", dns.TypeA, denied, []uint16{dns.TypeRRSIG, dns.TypeNSEC}},
		{"www", dns.TypeA, "NOERROR | CNAME RRSIG(CNAME) A RRSIG(A) | ", nil},
		{"www", dns.TypeCNAME, "NOERROR | CNAME RRSIG(CNAME) | ", nil},
		{"www", dns.TypeMX, "NOERROR | CNAME RRSIG(CNAME) | SOA RRSIG(SOA) NSEC RRSIG(NSEC)", []uint16{dns.TypeA, dns.TypeTXT, dns.TypeAAAA, dns.TypeSSHFP, dns.TypeRRSIG, dns.TypeNSEC}},
		{"lost", dns.TypeA, "NOERROR | CNAME RRSIG(CNAME) | SOA RRSIG(SOA) NSEC RRSIG(NSEC)", []uint16{dns.TypeRRSIG, dns.TypeNSEC, 128}},
		{"away", dns.TypeA, "NOERROR | CNAME RRSIG(CNAME) | ", nil},
		{"_http._tcp.web", dns.TypeSRV, "NOERROR | SRV RRSIG(SRV) | ", nil},
		{"web-1", dns.TypeANY, "NOERROR | HINFO RRSIG(HINFO) | ", nil},
		{"nowhere", dns.TypeANY, denied, []uint16{dns.TypeRRSIG, dns.TypeNSEC, 128}},
		{"www", dns.TypeNSEC, "NOERROR | NSEC RRSIG(NSEC) | ", []uint16{dns.TypeCNAME, dns.TypeRRSIG, dns.TypeNSEC}},
		{"nowhere", dns.TypeNSEC, "NOERROR | NSEC RRSIG(NSEC) | ", []uint16{dns.TypeRRSIG, dns.TypeNSEC, 128}},
		{"web-1", dns.TypeRRSIG, "NOERROR | RRSIG(NSEC) | ", nil},
		{"big", dns.TypeTXT, "NOERROR |  | ", nil},
		{"", dns.TypeSOA, "NOERROR | SOA RRSIG(SOA) | ", nil},
		{"", dns.TypeNS, "NOERROR | NS RRSIG(NS) | ", nil},
		{"", dns.TypeDNSKEY, "NOERROR | DNSKEY RRSIG(DNSKEY) | ", nil},
		{"", dns.TypeDS, denied, []uint16{dns.TypeNS, dns.TypeSOA, dns.TypeTXT, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY, dns.TypeCAA}},
	} {
		name := strings.TrimPrefix(c.name+"."+testOrigin, ".")
		a := ask(t, o, set, question(name, c.typ, 1232, false), false, k)
		if got := shape(a); got != c.want || a.Truncated != (c.name == "big") || !a.Authoritative {
			t.Errorf("%s %s: %s, want %s", name, dns.TypeToString[c.typ], got, c.want)
		}
		var types []uint16
		for _, rr := range append(a.Answer, a.Ns...) {
			if nsec, ok := rr.(*dns.NSEC); ok {
				types = nsec.TypeBitMap
				if want := `\000.` + nsec.Hdr.Name; nsec.NextDomain != want {
					t.Errorf("%s is followed by %s, want %s", name, nsec.NextDomain, want)
				}
			}
		}
		if !slices.Equal(types, c.types) {
			t.Errorf("%s %s: types %v, want %v", name, dns.TypeToString[c.typ], types, c.types)
		}
	}
	if got := shape(ask(t, o, set, question("big."+testOrigin, dns.TypeTXT, 512, false), true, k)); got != "NOERROR | TXT RRSIG(TXT) | " {
		t.Errorf("over TCP: %s", got)
	}
	if a := ask(t, o, set, question("loop."+testOrigin, dns.TypeA, 1232, false), true, k); len(a.Answer) == 0 || a.Rcode != 0 {
		t.Errorf("an alias of itself: %s", shape(a))
	}
}

func TestOnlineCompactAnswers(t *testing.T) {
	k := generate(t, testOrigin)
	set, o := onlineZones(t, KeyState{k, Active})
	for name, want := range map[string]int{"nowhere.": dns.RcodeNameError, "lost.": dns.RcodeNameError, "b.c.": 0, "web-1.": 0} {
		a := ask(t, o, set, question(name+testOrigin, dns.TypeMX, 1232, true), false, k)
		if a.Rcode != want || a.IsEdns0().Hdr.Ttl&(flagCO<<8) == 0 {
			t.Errorf("%s: %s, flags %x", name, dns.RcodeToString[a.Rcode], a.IsEdns0().Hdr.Ttl)
		}
	}
	a := ask(t, o, set, question("web-1."+testOrigin, uint16(typeNXNAME), 1232, false), false, k)
	if ede, ok := a.IsEdns0().Option[0].(*dns.EDNS0_EDE); a.Rcode != dns.RcodeFormatError || !ok || ede.InfoCode != errorInvalidType {
		t.Errorf("NXNAME is answered %s", a)
	}
}

func TestOnlineKeys(t *testing.T) {
	keys := []*Key{generate(t, testOrigin), generate(t, testOrigin)}
	set, o := onlineZones(t, KeyState{keys[0], Active})
	if err := o.SetKeys([]KeyState{{keys[0], Retired}, {keys[1], Active}}); err != nil {
		t.Fatal(err)
	}
	if a := ask(t, o, set, question(testOrigin, dns.TypeDNSKEY, 1232, false), false, keys...); len(a.Answer) != 4 {
		t.Errorf("keys: %s", shape(a))
	}
	a := ask(t, o, set, question("web-1."+testOrigin, dns.TypeA, 1232, false), false, keys[1])
	if got := a.Answer[1].(*dns.RRSIG).KeyTag; got != keys[1].Tag() {
		t.Errorf("signed by %d", got)
	}
	for name, bad := range map[string][]KeyState{"none active": {{keys[0], Published}}, "nil": {{nil, Active}}} {
		if err := o.SetKeys(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	ask(t, o, set, question("web-1."+testOrigin, dns.TypeA, 1232, false), false, keys[1])
	if err := o.SetKeys(nil); err != nil {
		t.Fatal(err)
	}
	query, _ := question("web-1."+testOrigin, dns.TypeA, 1232, false).Pack()
	failed := new(dns.Msg)
	if err := failed.Unpack(o.Answer(t.Context(), set, query, false)); err != nil || failed.Rcode != dns.RcodeServerFailure {
		t.Errorf("without keys: %v, %s", err, failed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.SetKeys([]KeyState{{keys[1], Active}}); err != nil {
		t.Fatal(err)
	}
	if a := ask(t, o, set, question(testOrigin, dns.TypeDNSKEY, 1232, false), false, keys[1]); len(a.Answer) != 2 {
		t.Errorf("keys beside those of the zone: %s", shape(a))
	}
	query, _ = question("web-2."+testOrigin, dns.TypeA, 1232, false).Pack()
	for range cap(o.workers) {
		o.workers <- struct{}{}
	}
	if out := o.Answer(ctx, set, query, false); out != nil {
		t.Errorf("after the end: %x", out)
	}
}

// TestOnlineTime: signatures are remembered, bounded, and hold at any time.
func TestOnlineTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := generate(t, testOrigin)
		set, o := onlineZones(t, KeyState{k, Active})
		first := ask(t, o, set, question("web-1."+testOrigin, dns.TypeA, 1232, false), false, k)
		for i := range 200 {
			ask(t, o, set, question(fmt.Sprintf("n%d.%s", i, testOrigin), dns.TypeA, 1232, false), false, k)
			time.Sleep(37 * time.Minute)
		}
		if n := len(o.cache.young) + len(o.cache.old); n > 64 {
			t.Errorf("%d signatures remembered", n)
		}
		last := ask(t, o, set, question("web-1."+testOrigin, dns.TypeA, 1232, false), false, k)
		if first.Answer[1].(*dns.RRSIG).Inception == last.Answer[1].(*dns.RRSIG).Inception {
			t.Error("the signature was not renewed")
		}
	})
}

// TestOnlineProves: whatever is asked, the answer proves itself: a set that is signed, or an NSEC record at the name asked
// for, without the type.
func TestOnlineProves(t *testing.T) {
	k := generate(t, testOrigin)
	set, o := onlineZones(t, KeyState{k, Active})
	rapid.Check(t, func(t *rapid.T) {
		name := strings.Join(labelsDrawn.Draw(t, "labels"), ".") + "." + testOrigin
		typ := rapid.SampledFrom([]uint16{dns.TypeA, dns.TypeTXT, dns.TypeMX, dns.TypeCNAME, dns.TypeSRV, dns.TypeDS}).Draw(t, "type")
		a := ask(t, o, set, question(name, typ, 1232, rapid.Bool().Draw(t, "compact")), false, k)
		if len(a.Answer) > 0 && len(a.Ns) == 0 {
			return
		}
		nsec, ok := a.Ns[2].(*dns.NSEC)
		if !ok || nsec.Hdr.Name != name || slices.Contains(nsec.TypeBitMap, typ) || slices.Contains(nsec.TypeBitMap, dns.TypeCNAME) {
			t.Fatalf("%s %d is denied by %s", name, typ, a.Ns[2])
		}
		if (a.Rcode == dns.RcodeNameError) && !slices.Contains(nsec.TypeBitMap, 128) {
			t.Fatalf("%s: %s, but %s", name, dns.RcodeToString[a.Rcode], nsec)
		}
	})
}

// TestSuccessor: no name lies between a name and its successor where there is room; elsewhere the successor still follows.
func TestSuccessor(t *testing.T) {
	origin, _ := zone.AppendName(nil, testOrigin)
	rapid.Check(t, func(t *rapid.T) {
		name := slices.Clone(origin)
		for range rapid.IntRange(0, 8).Draw(t, "labels") {
			label := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 'z', '@', 'Z' + 1, 0xff}), 1, maxLabel).Draw(t, "label")
			if len(name)+1+len(label) > maxName {
				break
			}
			name = append(append([]byte{byte(len(label))}, label...), name...)
		}
		next := successor(name, origin)
		end := string(next) == string(origin)
		if len(next) > maxName || !end && wireCompare(name, next) >= 0 || !within(next, origin) {
			t.Fatalf("%q is followed by %q", name, next)
		}
		if len(name)+2 <= maxName && string(next) != "\x01\x00"+string(name) {
			t.Fatalf("%q is followed by %q", name, next)
		}
	})
}

// wireCompare compares wire names canonically.
func wireCompare(a, b []byte) int {
	split := func(wire []byte) (labels []string) {
		for i := 0; wire[i] != 0; i += 1 + int(wire[i]) {
			labels = append(labels, string(wire[i+1:i+1+int(wire[i])]))
		}
		slices.Reverse(labels)
		return labels
	}
	return slices.Compare(split(a), split(b))
}

func FuzzOnline(f *testing.F) {
	k := generate(f, testOrigin)
	set, o := onlineZones(f, KeyState{k, Active})
	for _, name := range []string{"web-1.", "nowhere.", "www.", "loop.", "b.c.", `\000.`, ""} {
		query, err := question(name+testOrigin, dns.TypeA, 1232, name == "www.").Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(query, name == "")
	}
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, query []byte, tcp bool) {
		out := o.Answer(t.Context(), set, query, tcp)
		if out == nil {
			return
		}
		if !tcp && len(out) > zone.MaxUDP {
			t.Fatalf("%d octets over UDP", len(out))
		}
		a := new(dns.Msg)
		if err := a.Unpack(out); err != nil {
			t.Fatalf("%v: %x for %x", err, out, query)
		}
		if a.Rcode == dns.RcodeServerFailure || a.Rcode == dns.RcodeFormatError {
			return
		}
		if !a.Truncated && len(a.Answer)+len(a.Ns) == 0 {
			t.Fatalf("an empty answer to %x", query)
		}
		if len(a.Answer) == 1 && a.Answer[0].Header().Rrtype == dns.TypeRRSIG {
			return
		}
		checkSection(t, a.Answer, k)
		checkSection(t, a.Ns, k)
	})
}
