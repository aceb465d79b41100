package dnsserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// build makes a zone with hosts, and a name that has the addresses of all of them.
func build(t testing.TB, hosts int) *zone.Zone {
	t.Helper()
	cfg := zone.Config{Origin: "example.test", Serial: 1, TTL: 30, NS: []zone.NameServer{{Name: "ns.example.test", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}}}
	for i := range hosts {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		cfg.Records = append(cfg.Records, zone.Address(fmt.Sprintf("h-%d.example.test", i), addr), zone.Address("all.example.test", addr))
	}
	z, err := zone.Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// strict is a server that knows no source, and has all options.
func strict(t testing.TB, limit int) *Server {
	t.Helper()
	s, err := New(Config{
		Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Logger: slog.New(slog.DiscardHandler), Readers: 1,
		Known: func(netip.Addr) bool { return false }, Cookies: func() [2][16]byte { return [2][16]byte{{1}, {2}} },
		ID: "a-server-with-a-name-that-is-as-long-as-names-of-servers-may-be!", RateLimit: limit,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set([]*zone.Zone{build(t, 200)}); err != nil {
		t.Fatal(err)
	}
	return s
}

// respondTo returns the answer to one message.
func respondTo(r *responder, msg []byte, from netip.Addr) []byte {
	r.refresh(time.Unix(1_700_000_000, 0))
	var q zone.Query
	answer, _ := r.respond(make([]byte, 0, zone.MaxUDP), &q, zone.Parse(msg, &q), false, from)
	return answer
}

// check says what is wrong with an answer of a server that knows nobody.
func check(msg, answer []byte) error {
	if len(answer) == 0 {
		return nil
	}
	switch {
	case len(answer) > amplification*len(msg):
		return fmt.Errorf("%d octets answer %d", len(answer), len(msg))
	case !bytes.Equal(answer[:2], msg[:2]) || answer[2]&0x80 == 0 || answer[2]&0x78 != msg[2]&0x78 || answer[3]&0x80 != 0:
		return fmt.Errorf("header % x answers % x", answer[:4], msg[:4])
	case answer[2]&flagTC != 0 && binary.BigEndian.Uint16(answer[6:]) != 0:
		return fmt.Errorf("a truncated answer has records: % x", answer)
	}
	if err := new(dns.Msg).Unpack(answer); err != nil {
		return fmt.Errorf("% x: %w", answer, err)
	}
	return nil
}

// TestNothingAmplifies: no answer to an unknown source is larger than three times the query, whatever is asked.
func TestNothingAmplifies(t *testing.T) {
	r := responder{s: strict(t, 3)}
	from := netip.MustParseAddr("192.0.2.1")
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"all.example.test.", "h-1.example.test.", "example.test.", "nope.example.test.", "test.", ".", "x.", "aLL.eXample.test.", "ns.example.test.", "a.b.c.d.e.f.example.test."}
		m := new(dns.Msg)
		m.Id = rapid.Uint16().Draw(t, "id")
		types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeANY, dns.TypeNS, dns.TypeSOA, dns.TypeAXFR, dns.TypeIXFR, dns.TypeTXT, dns.TypeNULL, 65280}
		m.Question = []dns.Question{{Name: rapid.SampledFrom(names).Draw(t, "name"), Qtype: rapid.SampledFrom(types).Draw(t, "type"), Qclass: rapid.SampledFrom([]uint16{1, 1, 1, 3, 255}).Draw(t, "class")}}
		m.Opcode = rapid.SampledFrom([]int{0, 0, 0, 0, 4, 5, 2}).Draw(t, "opcode")
		if rapid.Bool().Draw(t, "edns") {
			m.SetEdns0(rapid.Uint16().Draw(t, "size"), rapid.Bool().Draw(t, "do"))
			m.IsEdns0().SetVersion(rapid.SampledFrom([]uint8{0, 0, 0, 1, 255}).Draw(t, "version"))
			if rapid.Bool().Draw(t, "nsid") {
				m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
			}
			if rapid.Bool().Draw(t, "cookie") {
				m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"})
			}
		}
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if err := check(msg, respondTo(&r, msg, from)); err != nil {
			t.Fatalf("%v\n%v", m, err)
		}
	})
}

// FuzzRespond: the same for any octets, over UDP and as a stream does it.
func FuzzRespond(f *testing.F) {
	for _, name := range []string{"all.example.test.", "nope.example.test.", "."} {
		m := new(dns.Msg).SetQuestion(name, dns.TypeA)
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
		msg, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg, false)
		f.Add(msg[:len(msg)-1], true)
	}
	s := strict(f, 0)
	from := netip.MustParseAddr("2001:db8::1")
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool) {
		r := responder{s: s, tcp: tcp}
		answer := respondTo(&r, msg, from)
		if tcp && len(answer) > 0 {
			msg = append(msg[:len(msg):len(msg)], make([]byte, zone.MaxMessage)...) // TCP may amplify: its source is sure.
		}
		if err := check(msg, answer); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRespondAllocatesNothing: every kind of answer that comes without a goroutine.
func TestRespondAllocatesNothing(t *testing.T) {
	r := responder{s: strict(t, 1_000_000)}
	from := netip.MustParseAddr("192.0.2.1")
	r.refresh(time.Unix(1_700_000_000, 0))
	out := make([]byte, 0, zone.MaxUDP)
	for _, name := range []string{"h-7.example.test.", "nope.example.test.", "all.example.test.", "example.com.", "example.test."} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeANY, dns.TypeAXFR} {
			m := new(dns.Msg).SetQuestion(name, typ)
			m.SetEdns0(1232, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
			msg, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			var q zone.Query
			if n := testing.AllocsPerRun(100, func() {
				answer, next := r.respond(out, &q, zone.Parse(msg, &q), false, from)
				if len(answer) == 0 || next != stepDone {
					t.Fatal("no answer")
				}
			}); n != 0 {
				t.Errorf("%s %d: %v allocations", name, typ, n)
			}
		}
	}
}

// TestNotReady: before there are zones, nothing is told of them, to secondaries neither.
func TestNotReady(t *testing.T) {
	s := strict(t, 0)
	s.cfg.Special = func(context.Context, netip.AddrPort, []byte, bool, []byte, func([]byte) error) error { return nil }
	s.set.Store(nil)
	r := responder{s: s}
	for _, typ := range []uint16{dns.TypeA, dns.TypeAXFR, dns.TypeIXFR} {
		m := new(dns.Msg).SetQuestion("example.test.", typ)
		m.SetEdns0(1232, false)
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		got := new(dns.Msg)
		if err := got.Unpack(respondTo(&r, msg, netip.MustParseAddr("192.0.2.1"))); err != nil {
			t.Fatal(err)
		}
		if e, ok := got.IsEdns0().Option[0].(*dns.EDNS0_EDE); got.Rcode != dns.RcodeServerFailure || !ok || e.InfoCode != errorNotReady {
			t.Errorf("%v", got)
		}
	}
}

// TestReaderHoldsNoZones: a reader that waits keeps no zones alive, whatever it answered last.
func TestReaderHoldsNoZones(t *testing.T) {
	r := reader{responder: responder{s: strict(t, 0)}, batch: newBatch(false)}
	m := new(dns.Msg).SetQuestion("h-1.example.test.", dns.TypeA)
	for i := range 2 {
		msg, err := m.PackBuffer(r.batch.in[i*stride : (i+1)*stride])
		if err != nil {
			t.Fatal(err)
		}
		r.batch.received[i].n = uint32(len(msg))
		r.batch.names[i].Family = unix.AF_INET
	}
	r.batch.received[1].hdr.Flags = unix.MSG_TRUNC
	zones := weak.Make(r.s.set.Load())
	r.answer(t.Context(), 2)
	if r.batch.queued != 2 || r.tally[statPositive] != 1 {
		t.Errorf("%d answers", r.batch.queued)
	}
	r.s.set.Store(nil)
	runtime.GC()
	if zones.Value() != nil {
		t.Error("the zones of before are still held")
	}
	runtime.KeepAlive(&r)
}

// TestSigningIsLimited: who is no known source has only so many answers signed, also where it is where it says.
func TestSigningIsLimited(t *testing.T) {
	s := strict(t, 3)
	z, err := zone.Build(zone.Config{Origin: "signed.test", Serial: 1, TTL: 30, Mode: zone.Online, NS: []zone.NameServer{{Name: "ns.other.test"}}})
	if err == nil {
		err = s.Set([]*zone.Zone{z})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.cfg.Online = func(context.Context, *zone.Set, []byte, bool) []byte { return nil }
	m := new(dns.Msg).SetQuestion("signed.test.", dns.TypeSOA)
	m.SetEdns0(1232, true)
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	from := netip.MustParseAddr("192.0.2.1")
	for _, known := range []bool{false, true} {
		s.cfg.Known = func(netip.Addr) bool { return known }
		r := responder{s: s, tcp: true}
		r.refresh(time.Unix(1_700_000_000, 0))
		signed, failed := 0, 0
		for range 6 {
			var q zone.Query
			answer, next := r.respond(nil, &q, zone.Parse(msg, &q), false, from)
			if next == stepOnline {
				signed++
			} else if zone.Rcode(answer[3]&0xf) == zone.ServerFailure {
				failed++
			}
		}
		if want := map[bool]int{false: 3, true: 6}[known]; signed != want || failed != 6-want {
			t.Errorf("known %v: %d signed, %d failed", known, signed, failed)
		}
	}
}

// TestSourcesInTurn: what one source may get is not what the next in a batch may, nor what a query of its own with a cookie may.
func TestSourcesInTurn(t *testing.T) {
	const limit = 5
	s := strict(t, limit)
	known, unknown := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	s.cfg.Known = func(a netip.Addr) bool { return a == known }
	r := responder{s: s}
	r.refresh(time.Unix(1_700_000_000, 0))
	pack := func(cookie []byte) []byte {
		m := new(dns.Msg).SetQuestion("h-1.example.test.", dns.TypeA).SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: hex.EncodeToString(cookie)}}
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	client := []byte("12345678")
	cookie := r.secrets.give(nil, client, unknown, r.unix)
	for round := range 2 * limit {
		for i, c := range []struct {
			from    netip.Addr
			cookie  []byte
			trusted bool
		}{{known, client, true}, {unknown, client, false}, {unknown, cookie, true}, {known, cookie, true}, {unknown, cookie, true}} {
			var q zone.Query
			msg := pack(c.cookie)
			answer, next := r.respond(nil, &q, zone.Parse(msg, &q), false, c.from)
			whole := len(answer) > 12 && answer[7] == 1
			if next != stepDone || r.trusted != c.trusted || whole != (c.trusted || round < limit) {
				t.Errorf("round %d, query %d from %s: trusted %v, whole %v", round, i, c.from, r.trusted, whole)
			}
		}
	}
}

func TestWithOptions(t *testing.T) {
	m := new(dns.Msg).SetQuestion("example.test.", dns.TypeA)
	plain, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	options := appendError(nil, errorProhibited)
	if got := zone.WithOptions(plain, options); !bytes.Equal(got, plain) {
		t.Errorf("without OPT: % x", got)
	}
	m.SetEdns0(1232, true)
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got := new(dns.Msg)
	if err := got.Unpack(zone.WithOptions(msg, options)); err != nil {
		t.Fatal(err)
	}
	if e, ok := got.IsEdns0().Option[0].(*dns.EDNS0_EDE); !ok || e.InfoCode != errorProhibited {
		t.Errorf("%v", got)
	}
}
