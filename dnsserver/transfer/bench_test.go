package transfer_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

func hosts(n int) (records []zone.Record) {
	for i := range n {
		records = append(records, zone.Address(fmt.Sprintf("host-%d.%s", i, origin), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})))
	}
	return records
}

// BenchmarkTransfer is a whole transfer of 100,000 names, up to the socket.
func BenchmarkTransfer(b *testing.B) {
	w := newWorld(b, transfer.Config{}, newZone(b, zone.Config{Records: hosts(100_000)}))
	query, _ := signed(b, newKey(b, keyName), axfr())
	octets := 0
	b.ReportAllocs()
	for b.Loop() {
		octets = 0
		err := w.Special(b.Context(), netip.AddrPort{}, query, true, nil, func(msg []byte) error {
			octets += len(msg)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(octets), "octets")
}

// BenchmarkDelta is one changed name of 100,000, as each change costs the publisher.
func BenchmarkDelta(b *testing.B) {
	z := newZone(b, zone.Config{Records: hosts(100_000)})
	w := newWorld(b, transfer.Config{}, z)
	name := "host-7." + origin
	next, err := z.With(2, []zone.Change{{Name: name, Records: []zone.Record{zone.Text(name, "changed")}}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		w.Delta(z, next, []string{name})
	}
}
