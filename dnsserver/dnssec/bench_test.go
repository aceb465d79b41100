package dnssec

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// hosts returns the records of a zone of n machines.
func hosts(n int) []zone.Record {
	records := make([]zone.Record, 0, 2*n)
	for i := range n {
		name := fmt.Sprintf("web-%d.%s", i, testOrigin)
		records = append(records, zone.Address(name, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})),
			zone.Text(name, "pool=web os=debian-12 kernel=6.1.0 agent=1.2.3"))
	}
	return records
}

// BenchmarkSignature is one signature.
func BenchmarkSignature(b *testing.B) {
	k := generate(b, testOrigin)
	owner, _ := zone.AppendName(nil, "web-1."+testOrigin)
	set := rrset{typ: zone.TypeA, ttl: 300, data: [][]byte{{192, 0, 2, 1}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.sign(owner, set, validity{1, 2}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkZone signs a zone of 100,000 machines: all of it, and what follows.
func BenchmarkZone(b *testing.B) {
	const n = 100_000
	s := newSigner(b, testSigned, KeyState{generate(b, testOrigin), Active})
	base := build(b, zone.Presigned, 1, hosts(n)...)
	z := signAll(b, s, base, nil)
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			signAll(b, s, base, nil)
		}
		// Each name has two sets and an NSEC record.
		b.ReportMetric(float64(b.N*3*n)/b.Elapsed().Seconds(), "signatures/s")
	})
	b.Run("taken-over", func(b *testing.B) {
		for b.Loop() {
			signAll(b, s, base, z)
		}
	})
	// One machine comes or goes, changes, or none does; a tick passes.
	for name, records := range map[string][]zone.Record{
		"come-or-go": {address("new-1."+testOrigin, "192.0.2.1")},
		"none":       nil,
	} {
		b.Run(name, func(b *testing.B) {
			z, serial := z, uint32(2)
			for b.Loop() {
				var changes []zone.Change
				if records != nil {
					changes = []zone.Change{{Name: "new-1." + testOrigin}}
					if serial%2 == 0 {
						changes[0].Records = records
					}
				}
				z = sign(b, s, z, serial, changes...)
				serial++
			}
		})
	}
	b.Run("tick", func(b *testing.B) {
		z, serial := z, uint32(2)
		for b.Loop() {
			s := newSigner(b, testSigned.Add(time.Duration(serial)*Tick), KeyState{s.active, Active})
			z = sign(b, s, z, serial)
			serial++
		}
	})
}

// BenchmarkOnline answers with DO: with remembered signatures, and with a new one each time.
func BenchmarkOnline(b *testing.B) {
	k := generate(b, testOrigin)
	set, o := onlineZones(b, KeyState{k, Active})
	same, _ := question("web-1."+testOrigin, dns.TypeA, 1232, false).Pack()
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o.Answer(b.Context(), set, same, false)
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		query, _ := question("aaaaaaaa."+testOrigin, dns.TypeA, 1232, false).Pack()
		for b.Loop() {
			copy(query[headerSize+1:], fmt.Sprintf("%08d", i))
			o.Answer(b.Context(), set, query, false)
			i++
		}
	})
}
