package transfer_test

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/transfer"
	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// FuzzSpecial checks that every answer to any octets, signed and not, is a message that the library understands, and that what
// is not signed never gets a record.
func FuzzSpecial(f *testing.F) {
	first := newZone(f, zone.Config{Serial: 5, Records: []zone.Record{zone.Text("a."+origin, "before")}})
	second, err := first.With(6, []zone.Change{{Name: "a." + origin, Records: []zone.Record{zone.Text("a."+origin, "after")}}})
	if err != nil {
		f.Fatal(err)
	}
	w := newWorld(f, transfer.Config{}, second)
	w.Delta(first, second, []string{"a." + origin})
	key := newKey(f, keyName)
	for _, m := range []*dns.Msg{axfr(), ixfr(5), ixfr(6), ixfr(4), question(origin, dns.TypeSOA), new(dns.Msg).SetNotify(origin)} {
		msg, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg, true)
		f.Add(msg, false)
	}
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool) {
		if len(msg) > 4096 {
			return
		}
		for _, answer := range w.ask(t, msg, tcp) {
			var q zone.Query
			if m := unpack(t, answer); zone.Parse(msg, &q) == zone.Special && len(m.Answer) > 0 {
				t.Fatalf("answered without a signature: %v", m)
			}
		}
		if len(msg) < 12 || msg[10] == 255 && msg[11] == 255 {
			return
		}
		query, session := tsig.Begin(key, msg, now())
		for _, answer := range w.ask(t, query, tcp) {
			m := unpack(t, answer)
			if _, err := session.Accept(answer, now()); err != nil && len(m.Answer) > 0 {
				t.Fatalf("%v: %v", m, err)
			}
		}
	})
}
