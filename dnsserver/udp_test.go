package dnsserver_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
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

// TestBursts: whatever many clients send, less and more than is read at once and with pauses in between, is answered.
func TestBursts(t *testing.T) {
	s := start(t, dnsserver.Config{Readers: 2}, zoneWith(t, 1, 200))
	queries := burst(t)
	var clients sync.WaitGroup
	defer clients.Wait()
	for seed := range uint64(8) {
		clients.Go(func() {
			conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.Addr()))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			random, buf := rand.New(rand.NewPCG(1, seed)), make([]byte, 2048)
			for range 100 {
				size := 1 + random.IntN(100)
				if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Error(err)
					return
				}
				for i := range size {
					if _, err := conn.Write(queries[i%len(queries)]); err != nil {
						t.Error(err)
						return
					}
				}
				for i := range size {
					if _, err := conn.Read(buf); err != nil {
						t.Errorf("%d of %d answers: %v", i, size, err)
						return
					}
				}
			}
		})
	}
}

// TestStopsUnderLoad: a server whose readers always find more to read ends when it is told to.
func TestStopsUnderLoad(t *testing.T) {
	var load sync.WaitGroup
	defer load.Wait()
	ended := make(chan struct{})
	defer close(ended)
	var told time.Time
	t.Run("server", func(t *testing.T) {
		s := start(t, dnsserver.Config{Readers: 1}, zoneWith(t, 1, 200))
		query, err := question("h-0.example.test", dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.Addr()))
			if err != nil {
				t.Fatal(err)
			}
			load.Go(func() {
				defer conn.Close()
				for {
					select {
					case <-ended:
						return
					default:
						_, _ = conn.Write(query) // Nobody listens in the end.
					}
				}
			})
		}
		for s.Stats().Queries < 1000 {
			runtime.Gosched()
		}
		told = time.Now()
	})
	if took := time.Since(told); took > 5*time.Second {
		t.Errorf("it took %s", took)
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
