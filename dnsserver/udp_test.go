package dnsserver_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver"
)

// busy is a server with all features on and limits above any load, and a socket that asks it without allocating.
func busy(t testing.TB, at string) (ask func(queries [][]byte)) {
	t.Helper()
	s := start(t, dnsserver.Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort(at)}, Readers: 1, Known: nobody, RateLimit: 100_000_000, Cookies: twoSecrets, ID: "bench"}, zoneWith(t, 1, 200))
	conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(s.Addr().Port())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	return func(queries [][]byte) {
		for _, q := range queries {
			if _, err := conn.Write(q); err != nil {
				t.Fatal(err)
			}
		}
		for range queries {
			if _, _, err := conn.ReadFromUDPAddrPort(buf); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// burst is queries of several outcomes, with EDNS, cookies and without.
func burst(t testing.TB) (queries [][]byte) {
	t.Helper()
	for _, m := range []*dns.Msg{
		question("h-0.example.test", dns.TypeA), question("h-199.example.test", dns.TypeA, cookie("0011223344556677")),
		question("nope.example.test", dns.TypeA), question("h-0.example.test", dns.TypeAAAA), question("all.example.test", dns.TypeA),
		question("example.com", dns.TypeA), new(dns.Msg).SetQuestion("example.test.", dns.TypeSOA), question("example.test", dns.TypeANY),
	} {
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		queries = append(queries, msg, msg)
	}
	return queries
}

// TestUDPAllocatesNothing: neither reading nor answering nor writing does, once the server runs.
func TestUDPAllocatesNothing(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::]:0"} {
		ask, queries := busy(t, at), burst(t)
		if n := testing.AllocsPerRun(200, func() { ask(queries) }); n != 0 {
			t.Errorf("%s: %v allocations for %d queries", at, n, len(queries))
		}
	}
}

func BenchmarkUDP(b *testing.B) {
	ask, queries := busy(b, "127.0.0.1:0"), burst(b)
	b.ReportAllocs()
	for b.Loop() {
		ask(queries)
	}
	b.ReportMetric(float64(b.N*len(queries))/b.Elapsed().Seconds(), "queries/s")
}
