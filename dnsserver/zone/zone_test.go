package zone_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

func mustBuild(t rapid.TB, cfg zone.Config) *zone.Zone {
	t.Helper()
	z, err := zone.Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func mustSet(t rapid.TB, zones ...*zone.Zone) *zone.Set {
	t.Helper()
	s, err := zone.NewSet(zones)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sample() []zone.Config {
	ns := []zone.NameServer{{Name: "ns-a.example.test", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}}
	return []zone.Config{
		{Origin: "example.test", Serial: 7, TTL: 30, NS: ns, Records: []zone.Record{
			{Name: "zk-1.example.test", Address: netip.MustParseAddr("10.0.0.11")},
			{Name: "zk-2.example.test", Address: netip.MustParseAddr("10.0.0.12")},
			{Name: "zk.example.test", Address: netip.MustParseAddr("10.0.0.11")},
			{Name: "zk.example.test", Address: netip.MustParseAddr("10.0.0.12")},
			{Name: "zk.example.test", Address: netip.MustParseAddr("10.0.0.12")},
			{Name: "deep.in.the.example.test.", Address: netip.MustParseAddr("fd00::2")},
		}},
		{Origin: "0.0.10.in-addr.arpa.", Serial: 7, TTL: 30, NS: ns, Records: []zone.Record{
			{Name: zone.ReverseName(netip.MustParseAddr("10.0.0.11")), Target: "zk-1.example.test"},
		}},
	}
}

func sampleSet(t rapid.TB) *zone.Set {
	var zones []*zone.Zone
	for _, cfg := range sample() {
		zones = append(zones, mustBuild(t, cfg))
	}
	return mustSet(t, zones...)
}

// ask packs a question, has the set answer it and unpacks the answer.
func ask(t rapid.TB, s *zone.Set, m *dns.Msg, tcp bool) *dns.Msg {
	t.Helper()
	query, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	answer, verdict := s.Respond(nil, query, tcp)
	switch verdict {
	case zone.Drop:
		return nil
	case zone.Foreign:
		answer = zone.Fail(nil, query, zone.Refused)
	}
	var r dns.Msg
	if err := r.Unpack(answer); err != nil {
		t.Fatalf("answer does not parse: %v", err)
	}
	return &r
}

func question(name string, typ uint16) *dns.Msg {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), typ)
	m.Id = 0
	return m
}

func texts(rrs []dns.RR) []string {
	out := []string{}
	for _, rr := range rrs {
		out = append(out, strings.Join(strings.Fields(rr.String()), " "))
	}
	return out
}

func TestAnswers(t *testing.T) {
	s := sampleSet(t)
	soa := "%s 10 IN SOA ns-a.example.test. hostmaster.%s 7 60 10 604800 10"
	forward := fmt.Sprintf(soa, "example.test.", "example.test.")
	tests := []struct {
		name, ask         string
		typ               uint16
		code              int
		answer, authority []string
	}{
		{"address", "zk-1.example.test", dns.TypeA, dns.RcodeSuccess, []string{"zk-1.example.test. 30 IN A 10.0.0.11"}, nil},
		{"mixed case comes back", "zK-1.eXample.Test", dns.TypeA, dns.RcodeSuccess, []string{"zK-1.eXample.Test. 30 IN A 10.0.0.11"}, nil},
		{"each address once", "zk.example.test", dns.TypeA, dns.RcodeSuccess, []string{"zk.example.test. 30 IN A 10.0.0.11", "zk.example.test. 30 IN A 10.0.0.12"}, nil},
		{"six", "deep.in.the.example.test", dns.TypeAAAA, dns.RcodeSuccess, []string{"deep.in.the.example.test. 30 IN AAAA fd00::2"}, nil},
		{"no data", "zk-1.example.test", dns.TypeAAAA, dns.RcodeSuccess, nil, []string{forward}},
		{"no name", "zk-3.example.test", dns.TypeA, dns.RcodeNameError, nil, []string{forward}},
		{"empty non-terminal", "in.the.example.test", dns.TypeA, dns.RcodeSuccess, nil, []string{forward}},
		{"below an existing name", "x.zk-1.example.test", dns.TypeA, dns.RcodeNameError, nil, []string{forward}},
		{"name servers", "example.test", dns.TypeNS, dns.RcodeSuccess, []string{"example.test. 30 IN NS ns-a.example.test."}, nil},
		{"soa", "example.test", dns.TypeSOA, dns.RcodeSuccess, []string{"example.test. 30 IN SOA ns-a.example.test. hostmaster.example.test. 7 60 10 604800 10"}, nil},
		{"server's address", "ns-a.example.test", dns.TypeAAAA, dns.RcodeSuccess, []string{"ns-a.example.test. 30 IN AAAA fd00::1"}, nil},
		{"pointer", "11.0.0.10.in-addr.arpa", dns.TypePTR, dns.RcodeSuccess, []string{"11.0.0.10.in-addr.arpa. 30 IN PTR zk-1.example.test."}, nil},
		{"no pointer", "12.0.0.10.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, nil, []string{fmt.Sprintf(soa, "0.0.10.in-addr.arpa.", "0.0.10.in-addr.arpa.")}},
		{"any is minimal", "zk.example.test", dns.TypeANY, dns.RcodeSuccess, []string{`zk.example.test. 30 IN HINFO "RFC8482" ""`}, nil},
		{"any of nothing", "the.example.test", dns.TypeANY, dns.RcodeSuccess, nil, []string{forward}},
		{"not ours", "example.com", dns.TypeA, dns.RcodeRefused, nil, nil},
		{"parent is not ours", "test", dns.TypeA, dns.RcodeRefused, nil, nil},
		{"root is not ours", ".", dns.TypeNS, dns.RcodeRefused, nil, nil},
		{"looks like ours", "badexample.test", dns.TypeA, dns.RcodeRefused, nil, nil},
		{"transfer", "example.test", dns.TypeAXFR, dns.RcodeRefused, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := question(tt.ask, tt.typ)
			m.RecursionDesired = true
			r := ask(t, s, m, false)
			if r.Rcode != tt.code {
				t.Errorf("code %s, want %s", dns.RcodeToString[r.Rcode], dns.RcodeToString[tt.code])
			}
			if diff := cmp.Diff(append([]string{}, tt.answer...), texts(r.Answer)); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(append([]string{}, tt.authority...), texts(r.Ns)); diff != "" {
				t.Errorf("authority (-want +got):\n%s", diff)
			}
			if !r.Response || r.RecursionAvailable || !r.RecursionDesired || r.Authoritative != (tt.code != dns.RcodeRefused) {
				t.Errorf("flags: %+v", r.MsgHdr)
			}
			if diff := cmp.Diff(m.Question, r.Question); diff != "" {
				t.Errorf("question (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGlue(t *testing.T) {
	r := ask(t, sampleSet(t), question("example.test", dns.TypeNS), false)
	want := []string{"ns-a.example.test. 30 IN A 10.0.0.1", "ns-a.example.test. 30 IN AAAA fd00::1"}
	if diff := cmp.Diff(want, texts(r.Extra)); diff != "" {
		t.Error(diff)
	}
}

func TestProtocol(t *testing.T) {
	s := sampleSet(t)
	base := func() *dns.Msg { return question("zk-1.example.test", dns.TypeA) }
	tests := []struct {
		name string
		edit func(*dns.Msg)
		code int
		none bool
	}{
		{"a response is dropped", func(m *dns.Msg) { m.Response = true }, 0, true},
		{"other opcode", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented, false},
		{"update", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented, false},
		{"no question", func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError, false},
		{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError, false},
		{"other class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused, false},
		{"edns", func(m *dns.Msg) { m.SetEdns0(4096, true) }, dns.RcodeSuccess, false},
		{"edns version 1", func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) }, dns.RcodeBadVers, false},
		{"two opts", func(m *dns.Msg) { m.SetEdns0(4096, false); m.SetEdns0(4096, false) }, dns.RcodeFormatError, false},
		{"incremental transfer", func(m *dns.Msg) { m.SetIxfr("example.test.", 1, "a.", "b.") }, dns.RcodeRefused, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := base()
			tt.edit(m)
			r := ask(t, s, m, false)
			if (r == nil) != tt.none {
				t.Fatalf("answer %v", r)
			}
			if r == nil {
				return
			}
			if r.Rcode != tt.code {
				t.Errorf("code %d, want %d", r.Rcode, tt.code)
			}
			if opt := r.IsEdns0(); opt != nil && (opt.Version() != 0 || opt.UDPSize() != zone.MaxUDP || opt.Do() != m.IsEdns0().Do()) {
				t.Errorf("opt %v", opt)
			}
			if m.IsEdns0() != nil && r.Rcode != dns.RcodeFormatError && r.IsEdns0() == nil {
				t.Error("no OPT in the answer")
			}
		})
	}
}

func TestTruncation(t *testing.T) {
	cfg := sample()[0]
	for i := range 100 {
		cfg.Records = append(cfg.Records, zone.Record{Name: "many.example.test", Address: netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})})
	}
	s := mustSet(t, mustBuild(t, cfg))
	tests := []struct {
		size uint16
		tcp  bool
		want int
	}{{0, false, 0}, {512, false, 0}, {1232, false, 0}, {65535, false, 0}, {0, true, 100}, {512, true, 100}}
	for _, tt := range tests {
		m := question("many.example.test", dns.TypeA)
		if tt.size > 0 {
			m.SetEdns0(tt.size, false)
		}
		r := ask(t, s, m, tt.tcp)
		if len(r.Answer) != tt.want || r.Truncated != (tt.want == 0) {
			t.Errorf("size %d tcp %v: %d answers, truncated %v", tt.size, tt.tcp, len(r.Answer), r.Truncated)
		}
	}
}

func TestRotation(t *testing.T) {
	s := sampleSet(t)
	first := map[string]int{}
	for id := range uint16(10) {
		m := question("zk.example.test", dns.TypeA)
		m.Id = id
		r := ask(t, s, m, false)
		if len(r.Answer) != 2 {
			t.Fatalf("%d answers", len(r.Answer))
		}
		first[r.Answer[0].(*dns.A).A.String()]++
	}
	if diff := cmp.Diff(map[string]int{"10.0.0.11": 5, "10.0.0.12": 5}, first); diff != "" {
		t.Error(diff)
	}
}

func TestPartial(t *testing.T) {
	cfg := sample()[0]
	cfg.Partial, cfg.NS = true, nil
	s := mustSet(t, mustBuild(t, cfg))
	for name, want := range map[string]zone.Verdict{
		"zk-1.example.test": zone.Answered, "zk-9.example.test": zone.Foreign, "example.test": zone.Foreign, "the.example.test": zone.Foreign,
	} {
		query, err := question(name, dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, got := s.Respond(nil, query, false); got != want {
			t.Errorf("%s: verdict %d, want %d", name, got, want)
		}
		if !s.Covers(query) {
			t.Errorf("%s is not covered", name)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.9")
	many := make([]zone.Record, 0, 5000)
	for i := range 5000 {
		many = append(many, zone.Record{Name: "many.example.test", Address: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})})
	}
	tests := []struct {
		name string
		edit func(*zone.Config)
		want string
	}{
		{"outside", func(c *zone.Config) { c.Records = []zone.Record{{Name: "a.other.test", Address: addr}} }, "not within"},
		{"two pointers", func(c *zone.Config) {
			c.Records = []zone.Record{{Name: "a.example.test", Target: "x."}, {Name: "A.example.test", Target: "y."}}
		}, "second PTR"},
		{"nothing", func(c *zone.Config) { c.Records = []zone.Record{{Name: "a.example.test"}} }, "exactly one"},
		{"both", func(c *zone.Config) { c.Records = []zone.Record{{Name: "a.example.test", Target: "x.", Address: addr}} }, "exactly one"},
		{"empty label", func(c *zone.Config) { c.Records = []zone.Record{{Name: "a..example.test", Address: addr}} }, "label"},
		{"long label", func(c *zone.Config) {
			c.Records = []zone.Record{{Name: strings.Repeat("a", 64) + ".example.test", Address: addr}}
		}, "label"},
		{"long name", func(c *zone.Config) {
			c.Records = []zone.Record{{Name: strings.Repeat("aaaaaaa.", 31) + "example.test", Address: addr}}
		}, "longer"},
		{"space", func(c *zone.Config) { c.Records = []zone.Record{{Name: "a b.example.test", Address: addr}} }, "not allowed"},
		{"origin", func(c *zone.Config) { c.Origin = "a..b" }, "label"},
		{"no server", func(c *zone.Config) { c.NS = nil }, "no name server"},
		{"server's address", func(c *zone.Config) { c.NS[0].Addresses = []netip.Addr{{}} }, "invalid address"},
		{"ttl", func(c *zone.Config) { c.TTL = 1 << 31 }, "ttl"},
		{"too many", func(c *zone.Config) { c.Records = many }, "do not fit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := sample()[0]
			tt.edit(&cfg)
			if _, err := zone.Build(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := zone.NewSet([]*zone.Zone{mustBuild(t, sample()[0]), mustBuild(t, sample()[0])}); err == nil {
		t.Error("a zone twice in one set")
	}
}

func TestReverse(t *testing.T) {
	tests := []struct {
		prefix string
		want   []string
	}{
		{"10.88.0.0/24", []string{"0.88.10.in-addr.arpa."}},
		{"10.88.0.128/25", []string{"0.88.10.in-addr.arpa."}},
		{"10.88.0.0/16", []string{"88.10.in-addr.arpa."}},
		{"10.88.4.0/22", []string{"4.88.10.in-addr.arpa.", "5.88.10.in-addr.arpa.", "6.88.10.in-addr.arpa.", "7.88.10.in-addr.arpa."}},
		{"10.254.0.0/15", []string{"254.10.in-addr.arpa.", "255.10.in-addr.arpa."}},
		{"254.0.0.0/7", []string{"254.in-addr.arpa.", "255.in-addr.arpa."}},
		{"fd00:88::/32", []string{"8.8.0.0.0.0.d.f.ip6.arpa."}},
		{"fd00:88::/31", []string{"8.8.0.0.0.0.d.f.ip6.arpa.", "9.8.0.0.0.0.d.f.ip6.arpa."}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, zone.ReverseZones(netip.MustParsePrefix(tt.prefix))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.prefix, diff)
		}
	}
	for _, a := range []string{"10.88.0.2", "fd00:88::2", "::ffff:10.88.0.2"} {
		want, err := dns.ReverseAddr(netip.MustParseAddr(a).Unmap().String())
		if err != nil {
			t.Fatal(err)
		}
		if got := zone.ReverseName(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
	}
}

// TestLargestAnswer: a name with as many addresses as are promised to fit does fit, over TCP, with the longest question.
func TestLargestAnswer(t *testing.T) {
	cfg := sample()[0]
	name := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 48) + ".example.test"
	for i := range zone.MaxAddresses {
		cfg.Records = append(cfg.Records, zone.Record{Name: name, Address: netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})})
	}
	m := question(name, dns.TypeAAAA)
	m.SetEdns0(1232, false)
	if r := ask(t, mustSet(t, mustBuild(t, cfg)), m, true); len(r.Answer) != zone.MaxAddresses {
		t.Errorf("%d answers, want %d", len(r.Answer), zone.MaxAddresses)
	}
}

func TestRespondDoesNotAllocate(t *testing.T) {
	s := sampleSet(t)
	for _, name := range []string{"zK.example.test", "none.example.test", "11.0.0.10.in-addr.arpa"} {
		m := question(name, dns.TypeA)
		m.SetEdns0(1232, false)
		query, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 0, zone.MaxUDP)
		if n := testing.AllocsPerRun(100, func() { s.Respond(buf, query, false) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestEmptySet(t *testing.T) {
	var s *zone.Set
	for _, set := range []*zone.Set{s, mustSet(t)} {
		if r := ask(t, set, question("a.test", dns.TypeA), false); r.Rcode != dns.RcodeRefused {
			t.Errorf("code %d", r.Rcode)
		}
	}
	if slices.Collect(slices.Values(s.Zones())) != nil {
		t.Error("zones of the empty set")
	}
}

func BenchmarkRespond(b *testing.B) {
	cfg := sample()[0]
	for i := range 100000 {
		cfg.Records = append(cfg.Records, zone.Record{Name: fmt.Sprintf("h-%d.example.test", i), Address: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})})
	}
	s := mustSet(b, mustBuild(b, cfg))
	m := question("H-99999.example.test", dns.TypeA)
	m.SetEdns0(1232, false)
	query, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, zone.MaxUDP)
	b.ReportAllocs()
	for b.Loop() {
		s.Respond(buf, query, false)
	}
}
