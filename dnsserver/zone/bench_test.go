package zone_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// hosts are the zones of so many hosts: their addresses, and their pointers.
func hosts(t rapid.TB, n int) []*zone.Zone {
	cfgs := sample()
	forward, reverse := cfgs[0], cfgs[1]
	reverse.Origin, reverse.Records = "10.in-addr.arpa", nil
	for i := range n {
		addr, name := address(i), fmt.Sprintf("h-%d.example.test", i)
		forward.Records = append(forward.Records, zone.Address(name, addr))
		reverse.Records = append(reverse.Records, named(zone.ReverseName(addr), zone.TypePTR, name))
	}
	return []*zone.Zone{mustBuild(t, forward), mustBuild(t, reverse)}
}

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i>>16) + 1, byte(i >> 8), byte(i)})
}

// mix is queries as a server gets them: 70 % addresses, 20 % pointers, 10 % names that do not exist.
func mix(t rapid.TB, n int) [][]byte {
	queries := make([][]byte, 8192)
	for i := range queries {
		host := i * 7919 % n
		m := question(fmt.Sprintf("h-%d.example.test", host), dns.TypeA)
		switch i % 10 {
		case 7, 8:
			m = question(zone.ReverseName(address(host)), dns.TypePTR)
		case 9:
			m = question(fmt.Sprintf("x-%d.example.test", host), dns.TypeA)
		}
		m.Id = uint16(i)
		m.SetEdns0(1232, false)
		queries[i] = pack(t, m)
	}
	return queries
}

func TestAnswersDoNotAllocate(t *testing.T) {
	s := sampleSet(t)
	for _, ask := range []struct {
		name string
		typ  uint16
	}{
		{"zK.example.test", dns.TypeA}, {"none.example.test", dns.TypeA}, {"11.0.0.10.in-addr.arpa", dns.TypePTR}, {"zk.example.test", dns.TypeANY},
		{"store.example.test", dns.TypeA}, {"_zk._tcp.zk.example.test", dns.TypeSRV}, {"example.test", dns.TypeNS}, {"zk-1.example.test", dns.TypeRRSIG},
	} {
		m := question(ask.name, ask.typ)
		m.SetEdns0(1232, true)
		assertNoAllocation(t, s, ask.name, pack(t, m), zone.Ask)
	}
	assertNoAllocation(t, s, "malformed", []byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01"), zone.Fail)
}

func assertNoAllocation(t *testing.T, s *zone.Set, name string, query []byte, want zone.Verdict) {
	t.Helper()
	var q zone.Query
	r := zone.Reply{Max: zone.MaxUDP, Options: make([]byte, 20)}
	buf := make([]byte, 0, zone.MaxUDP)
	n := testing.AllocsPerRun(100, func() {
		switch verdict := zone.Parse(query, &q); {
		case verdict != want:
			t.Errorf("%s: verdict %d", name, verdict)
		case verdict == zone.Fail:
			q.Refuse(buf, q.Code(), &r)
		default:
			s.Answer(buf, &q, &r)
		}
	})
	if n != 0 {
		t.Errorf("%s: %v allocations", name, n)
	}
}

// TestMemory: what 100,000 hosts hold, forward and reverse.
func TestMemory(t *testing.T) {
	const most = 25 << 20
	before := heap()
	zones := hosts(t, 100_000)
	after := heap()
	t.Logf("%d names hold %.1f MiB", zones[0].Len()+zones[1].Len(), float64(after-before)/(1<<20))
	if after-before > most {
		t.Errorf("zones hold %d octets, more than %d", after-before, most)
	}
	runtime.KeepAlive(zones)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkAnswer(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, queries := mustSet(b, hosts(b, n)...), mix(b, n)
			var q zone.Query
			r := zone.Reply{Max: zone.MaxUDP}
			buf := make([]byte, 0, zone.MaxUDP)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if zone.Parse(queries[i%len(queries)], &q) == zone.Ask {
					s.Answer(buf, &q, &r)
				}
			}
		})
	}
}

// BenchmarkBatch answers batches as a server does, whose caches the kernel uses in between. It reports the time of a query.
func BenchmarkBatch(b *testing.B) {
	const batch = 32
	kernel := make([]byte, 3<<19)
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, messages := mustSet(b, hosts(b, n)...), mix(b, n)
			queries, verdicts := make([]zone.Query, batch), make([]zone.Verdict, batch)
			r := zone.Reply{Max: zone.MaxUDP}
			buf := make([]byte, 0, batch*zone.MaxUDP)
			took := make([]time.Duration, b.N)
			for i := range b.N {
				for j := 0; j < len(kernel); j += 64 {
					kernel[j]++
				}
				start := time.Now()
				at := i * batch % len(messages)
				s.ParseAll(messages[at:at+batch], queries, verdicts)
				out := buf
				for j := range queries {
					out, _ = s.Answer(out, &queries[j], &r)
				}
				took[i] = time.Since(start)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/batch, "ns/query")
		})
	}
}

func BenchmarkParse(b *testing.B) {
	queries := mix(b, 10_000)
	var q zone.Query
	for i := range b.N {
		zone.Parse(queries[i%len(queries)], &q)
	}
}

// BenchmarkWith is one host's coming or going among so many.
func BenchmarkWith(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		z := hosts(b, n)[0]
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				name := fmt.Sprintf("h-%d.example.test", i%n)
				change := zone.Change{Name: name}
				if i%2 == 0 {
					change.Records = []zone.Record{zone.Address(name, address(i))}
				}
				next, err := z.With(uint32(i), []zone.Change{change})
				if err != nil {
					b.Fatal(err)
				}
				z = next
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	for b.Loop() {
		hosts(b, 100_000)
	}
}
