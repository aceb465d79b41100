package zone_test

import (
	"net/netip"
	"strings"

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

func named(name string, typ zone.Type, target string) zone.Record {
	r, err := zone.Named(name, typ, target)
	if err != nil {
		panic(err)
	}
	return r
}

func service(name string, priority, weight, port uint16, target string) zone.Record {
	r, err := zone.Service(name, priority, weight, port, target)
	if err != nil {
		panic(err)
	}
	return r
}

func sample() []zone.Config {
	addr := netip.MustParseAddr
	ns := []zone.NameServer{{Name: "ns-a.example.test", Addresses: []netip.Addr{addr("10.0.0.1"), addr("fd00::1")}}}
	return []zone.Config{
		{Origin: "example.test", Serial: 7, TTL: 30, NS: ns, Records: []zone.Record{
			zone.Address("zk-1.example.test", addr("10.0.0.11")),
			zone.Address("zk-2.example.test", addr("10.0.0.12")),
			zone.Address("zk.example.test", addr("10.0.0.11")),
			zone.Address("zk.example.test", addr("10.0.0.12")),
			zone.Address("zk.example.test", addr("10.0.0.12")),
			zone.Address("deep.in.the.example.test.", addr("fd00::2")),
			zone.Text("zk-1.example.test", "pool=zk", "os=debian"),
			zone.SSHFingerprint("zk-1.example.test", 4, [32]byte{1, 2, 3}),
			zone.CAA("example.test", 0, "issue", ";"),
			service("_zk._tcp.zk.example.test", 0, 1, 2181, "zk-1.example.test"),
			service("_zk._tcp.zk.example.test", 0, 1, 2181, "zk-2.example.test"),
			named("store.example.test", zone.TypeCNAME, "zk.example.test"),
			named("away.example.test", zone.TypeCNAME, "www.example.com"),
			named("lost.example.test", zone.TypeCNAME, "nobody.example.test"),
			named("round.example.test", zone.TypeCNAME, "about.example.test"),
			named("about.example.test", zone.TypeCNAME, "round.example.test"),
			named("back.example.test", zone.TypeCNAME, "11.0.0.10.in-addr.arpa"),
		}},
		{Origin: "0.0.10.in-addr.arpa.", Serial: 7, TTL: 30, NS: ns, Records: []zone.Record{
			named(zone.ReverseName(addr("10.0.0.11")), zone.TypePTR, "zk-1.example.test"),
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

// respond answers a message as a server would, with TCP's or UDP's bounds.
func respond(dst, query []byte, s *zone.Set, tcp bool) ([]byte, zone.Verdict, zone.Outcome) {
	var queries [1]zone.Query
	var verdicts [1]zone.Verdict
	s.ParseAll([][]byte{query}, queries[:], verdicts[:])
	q, verdict := &queries[0], verdicts[0]
	r := zone.Reply{Max: zone.MaxMessage}
	if !tcp {
		r.Max = min(q.Size(), zone.MaxUDP)
	}
	switch verdict {
	case zone.Drop:
		return dst, verdict, 0
	case zone.Fail:
		return q.Refuse(dst, q.Code(), &r), verdict, 0
	case zone.Special:
		return q.Refuse(dst, zone.Refused, &r), verdict, 0
	}
	answer, outcome := s.Answer(dst, q, &r)
	if outcome == zone.Foreign || outcome == zone.Sign {
		answer = q.Refuse(dst, zone.Refused, &r)
	}
	return answer, verdict, outcome
}

// ask packs a question, has the set answer it and unpacks the answer.
func ask(t rapid.TB, s *zone.Set, m *dns.Msg, tcp bool) *dns.Msg {
	t.Helper()
	answer, verdict, _ := respond(nil, pack(t, m), s, tcp)
	if verdict == zone.Drop {
		return nil
	}
	var r dns.Msg
	if err := r.Unpack(answer); err != nil {
		t.Fatalf("answer does not parse: %v", err)
	}
	return &r
}

func pack(t rapid.TB, m *dns.Msg) []byte {
	t.Helper()
	query, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return query
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
