package zone_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

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
		{"text", "zk-1.example.test", dns.TypeTXT, dns.RcodeSuccess, []string{`zk-1.example.test. 30 IN TXT "pool=zk" "os=debian"`}, nil},
		{"host key", "zk-1.example.test", dns.TypeSSHFP, dns.RcodeSuccess, []string{"zk-1.example.test. 30 IN SSHFP 4 2 010203" + strings.Repeat("00", 29)}, nil},
		{"no authority may", "example.test", dns.TypeCAA, dns.RcodeSuccess, []string{`example.test. 30 IN CAA 0 issue ";"`}, nil},
		{"service", "_zk._tcp.zk.example.test", dns.TypeSRV, dns.RcodeSuccess, []string{
			"_zk._tcp.zk.example.test. 30 IN SRV 0 1 2181 zk-1.example.test.", "_zk._tcp.zk.example.test. 30 IN SRV 0 1 2181 zk-2.example.test.",
		}, nil},
		{"alias", "Store.example.test", dns.TypeA, dns.RcodeSuccess, []string{
			"Store.example.test. 30 IN CNAME zk.example.test.", "zk.example.test. 30 IN A 10.0.0.11", "zk.example.test. 30 IN A 10.0.0.12",
		}, nil},
		{"alias itself", "store.example.test", dns.TypeCNAME, dns.RcodeSuccess, []string{"store.example.test. 30 IN CNAME zk.example.test."}, nil},
		{"alias without data", "store.example.test", dns.TypeTXT, dns.RcodeSuccess, []string{"store.example.test. 30 IN CNAME zk.example.test."}, []string{forward}},
		{"alias to elsewhere", "away.example.test", dns.TypeA, dns.RcodeSuccess, []string{"away.example.test. 30 IN CNAME www.example.com."}, nil},
		{"alias to nothing", "lost.example.test", dns.TypeA, dns.RcodeNameError, []string{"lost.example.test. 30 IN CNAME nobody.example.test."}, []string{forward}},
		{"ring of aliases", "round.example.test", dns.TypeA, dns.RcodeSuccess, []string{
			"round.example.test. 30 IN CNAME about.example.test.", "about.example.test. 30 IN CNAME round.example.test.",
		}, nil},
		{"alias into another zone", "back.example.test", dns.TypePTR, dns.RcodeSuccess, []string{
			"back.example.test. 30 IN CNAME 11.0.0.10.in-addr.arpa.", "11.0.0.10.in-addr.arpa. 30 IN PTR zk-1.example.test.",
		}, nil},
		{"alias without data in another zone", "back.example.test", dns.TypeA, dns.RcodeSuccess, []string{
			"back.example.test. 30 IN CNAME 11.0.0.10.in-addr.arpa.",
		}, []string{fmt.Sprintf(soa, "0.0.10.in-addr.arpa.", "0.0.10.in-addr.arpa.")}},
		{"not ours", "example.com", dns.TypeA, dns.RcodeRefused, nil, nil},
		{"parent is not ours", "test", dns.TypeA, dns.RcodeRefused, nil, nil},
		{"root is not ours", ".", dns.TypeNS, dns.RcodeRefused, nil, nil},
		{"looks like ours", "badexample.test", dns.TypeA, dns.RcodeRefused, nil, nil},
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
		{"status", func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }, dns.RcodeNotImplemented, false},
		{"update", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented, false},
		{"no question", func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError, false},
		{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError, false},
		{"other class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused, false},
		{"edns", func(m *dns.Msg) { m.SetEdns0(4096, true) }, dns.RcodeSuccess, false},
		{"edns version 1", func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) }, dns.RcodeBadVers, false},
		{"two opts", func(m *dns.Msg) { m.SetEdns0(4096, false); m.SetEdns0(4096, false) }, dns.RcodeFormatError, false},
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
		cfg.Records = append(cfg.Records, zone.Address("many.example.test", netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})))
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
	cfg.Records = cfg.Records[:6]
	s := mustSet(t, mustBuild(t, cfg))
	for _, tt := range []struct {
		name string
		typ  uint16
		want zone.Outcome
	}{
		{"zk-1.example.test", dns.TypeA, zone.Positive}, {"zk-1.example.test", dns.TypeAAAA, zone.NoData}, {"zk-1.example.test", dns.TypeTXT, zone.Foreign},
		{"zk-9.example.test", dns.TypeA, zone.Foreign}, {"example.test", dns.TypeSOA, zone.Foreign}, {"the.example.test", dns.TypeA, zone.Foreign},
	} {
		query := pack(t, question(tt.name, tt.typ))
		if _, _, got := respond(nil, query, s, false); got != tt.want {
			t.Errorf("%s %d: outcome %d, want %d", tt.name, tt.typ, got, tt.want)
		}
		if !s.Covers(query) {
			t.Errorf("%s is not covered", tt.name)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.9")
	many := make([]zone.Record, 0, 5000)
	for i := range 5000 {
		many = append(many, zone.Address("many.example.test", netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})))
	}
	with := func(records ...zone.Record) func(*zone.Config) {
		return func(c *zone.Config) { c.Records = records }
	}
	tests := []struct {
		name string
		edit func(*zone.Config)
		want string
	}{
		{"outside", with(zone.Address("a.other.test", addr)), "not within"},
		{"two pointers", with(named("a.example.test", zone.TypePTR, "x."), named("A.example.test", zone.TypePTR, "y.")), "second PTR"},
		{"two aliases", with(named("a.example.test", zone.TypeCNAME, "x."), named("A.example.test", zone.TypeCNAME, "y.")), "second CNAME"},
		{"alias beside data", with(named("a.example.test", zone.TypeCNAME, "x."), zone.Address("a.example.test", addr)), "CNAME beside"},
		{"alias at the origin", with(named("example.test", zone.TypeCNAME, "x.")), "CNAME beside"},
		{"delegation", with(named("a.example.test", zone.TypeNS, "x.")), "delegation"},
		{"second soa", with(zone.Record{Name: "example.test", Type: zone.TypeSOA, Data: []byte{0}}), "not for records"},
		{"question's type", with(zone.Record{Name: "a.example.test", Type: zone.TypeANY}), "not for records"},
		{"wildcard", with(zone.Address("*.example.test", addr)), "wildcard"},
		{"invalid address", with(zone.Address("a.example.test", netip.Addr{})), "malformed"},
		{"open text", with(zone.Record{Name: "a.example.test", Type: zone.TypeTXT, Data: []byte{3, 'a'}}), "malformed"},
		{"capital target", with(zone.Record{Name: "a.example.test", Type: zone.TypePTR, Data: []byte{1, 'A', 0}}), "malformed"},
		{"signature of nothing", with(zone.Record{Name: "a.example.test", Type: zone.TypeRRSIG, Data: make([]byte, 30)}), "signature of type"},
		{"record's ttl", with(zone.Record{Name: "a.example.test", Type: zone.TypeA, TTL: 1 << 31, Data: make([]byte, 4)}), "ttl"},
		{"empty label", with(zone.Address("a..example.test", addr)), "label"},
		{"long label", with(zone.Address(strings.Repeat("a", 64)+".example.test", addr)), "label"},
		{"long name", with(zone.Address(strings.Repeat("aaaaaaa.", 31)+"example.test", addr)), "longer"},
		{"space", with(zone.Address("a b.example.test", addr)), "not allowed"},
		{"origin", func(c *zone.Config) { c.Origin = "a..b" }, "label"},
		{"no server", func(c *zone.Config) { c.NS = nil }, "no name server"},
		{"server's address", func(c *zone.Config) { c.NS[0].Addresses = []netip.Addr{{}} }, "malformed"},
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

// TestLargestAnswer: a name with as many addresses as are promised to fit does fit, over TCP, with the longest question.
func TestLargestAnswer(t *testing.T) {
	cfg := sample()[0]
	name := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 48) + ".example.test"
	for i := range zone.MaxAddresses {
		cfg.Records = append(cfg.Records, zone.Address(name, netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})))
	}
	m := question(name, dns.TypeAAAA)
	m.SetEdns0(1232, false)
	if r := ask(t, mustSet(t, mustBuild(t, cfg)), m, true); len(r.Answer) != zone.MaxAddresses {
		t.Errorf("%d answers, want %d", len(r.Answer), zone.MaxAddresses)
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
