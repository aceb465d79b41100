package zone_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// withCookie gives a question a cookie of so many octets, and further options behind it.
func withCookie(m *dns.Msg, size int, further ...dns.EDNS0) *dns.Msg {
	m.SetEdns0(1232, false)
	data := bytes.Repeat([]byte{7}, size)
	m.IsEdns0().Option = append([]dns.EDNS0{&dns.EDNS0_LOCAL{Code: dns.EDNS0COOKIE, Data: data}}, further...)
	return m
}

func TestParse(t *testing.T) {
	plain := func() *dns.Msg { return question("zk.example.test", dns.TypeA) }
	edit := func(f func(*dns.Msg)) *dns.Msg {
		m := plain()
		f(m)
		return m
	}
	tests := []struct {
		name    string
		msg     *dns.Msg
		verdict zone.Verdict
		code    zone.Rcode
	}{
		{"plain", plain(), zone.Ask, zone.Success},
		{"cookie of the client", withCookie(plain(), 8), zone.Ask, zone.Success},
		{"cookie of both", withCookie(plain(), 24), zone.Ask, zone.Success},
		{"longest cookie", withCookie(plain(), 40), zone.Ask, zone.Success},
		{"empty cookie", withCookie(plain(), 0), zone.Fail, zone.FormatError},
		{"short cookie", withCookie(plain(), 7), zone.Fail, zone.FormatError},
		{"cookie between", withCookie(plain(), 9), zone.Fail, zone.FormatError},
		{"too long cookie", withCookie(plain(), 41), zone.Fail, zone.FormatError},
		{"nothing but a cookie", withCookie(new(dns.Msg), 8), zone.Fail, zone.Success},
		{"nothing", new(dns.Msg), zone.Fail, zone.FormatError},
		{"signed", edit(func(m *dns.Msg) { m.SetTsig("key.", dns.HmacSHA256, 300, 0) }), zone.Special, zone.Success},
		{"signature not last", edit(func(m *dns.Msg) {
			m.SetTsig("key.", dns.HmacSHA256, 300, 0)
			m.Extra = append(m.Extra, &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}})
		}), zone.Fail, zone.FormatError},
		{"signed of version 1", edit(func(m *dns.Msg) {
			m.SetEdns0(1232, false)
			m.IsEdns0().SetVersion(1)
			m.SetTsig("key.", dns.HmacSHA256, 300, 0)
		}), zone.Special, zone.Success},
		{"version 1", edit(func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }), zone.Fail, zone.BadVersion},
		{"transfer", question("example.test", dns.TypeAXFR), zone.Special, zone.Success},
		{"incremental transfer", new(dns.Msg).SetIxfr("example.test.", 1, "a.", "b."), zone.Special, zone.Success},
		{"notify", new(dns.Msg).SetNotify("example.test."), zone.Special, zone.Success},
		{"update", new(dns.Msg).SetUpdate("example.test."), zone.Fail, zone.NotImplemented},
		{"answer", edit(func(m *dns.Msg) { m.Response = true }), zone.Drop, zone.Success},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var q zone.Query
			if verdict := zone.Parse(pack(t, tt.msg), &q); verdict != tt.verdict || q.Code() != tt.code {
				t.Errorf("verdict %d, code %d, want %d, %d", verdict, q.Code(), tt.verdict, tt.code)
			}
		})
	}
}

// TestAccessors: what is said of one query says nothing of the next.
func TestAccessors(t *testing.T) {
	type accessors struct {
		Name                               string
		Type                               zone.Type
		EDNS, DO, Compact, NSID, Signed    bool
		Size, Opcode, Cookie, Length, Code int
	}
	var q zone.Query
	parsed := func(msg []byte) accessors {
		zone.Parse(msg, &q)
		return accessors{
			string(q.Name()), q.Type(), q.EDNS(), q.DO(), q.Compact(), q.NSID(), q.Signed(), q.Size(), q.Opcode(), len(q.Cookie()), q.Len(), int(q.Code()),
		}
	}
	full := withCookie(question("zK.Example.test", dns.TypeAAAA), 16, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	full.IsEdns0().SetUDPSize(4096)
	full.IsEdns0().SetDo()
	full.IsEdns0().Hdr.Ttl |= 0x4000
	full.SetTsig("key.", dns.HmacSHA256, 300, 0)
	msg := pack(t, full)
	want := accessors{"\x02zk\x07example\x04test\x00", zone.TypeAAAA, true, true, true, true, true, 4096, 0, 16, len(msg), 0}
	if diff := cmp.Diff(want, parsed(msg)); diff != "" {
		t.Error(diff)
	}
	msg = pack(t, question(".", dns.TypeNS))
	if diff := cmp.Diff(accessors{Name: "\x00", Type: zone.TypeNS, Size: zone.MinUDP, Length: len(msg)}, parsed(msg)); diff != "" {
		t.Error(diff)
	}
}

// TestReply: an answer never exceeds its bound; its options come where there is room.
func TestReply(t *testing.T) {
	s := sampleSet(t)
	m := question("zk.example.test", dns.TypeA)
	m.SetEdns0(4096, false)
	query := pack(t, m)
	option := []byte{0xff, 0xf0, 0, 2, 1, 2}
	var q zone.Query
	for most := 12; most < 200; most++ {
		zone.Parse(query, &q)
		for _, tt := range []struct {
			name   string
			answer []byte
			whole  int
		}{
			{"code", q.Refuse(nil, zone.BadCookie, &zone.Reply{Max: most, Options: option}), 12 + 21 + 11 + 6},
			{"answer", first(s.Answer(nil, &q, &zone.Reply{Max: most, Options: option})), 12 + 21 + 2*16 + 11 + 6},
		} {
			var r dns.Msg
			if err := r.Unpack(tt.answer); err != nil || len(tt.answer) > most {
				t.Fatalf("%s of %d octets, most %d: %v", tt.name, len(tt.answer), most, err)
			}
			if whole := len(tt.answer) == tt.whole; whole != (most >= tt.whole) || whole != (r.IsEdns0() != nil && len(r.IsEdns0().Option) == 1 && !r.Truncated) {
				t.Fatalf("%s of %d octets, most %d: %v", tt.name, len(tt.answer), most, &r)
			}
		}
	}
}

func first(answer []byte, _ zone.Outcome) []byte { return answer }

// TestOneTTL: the records of one name and type have the smallest TTL, and so have their signatures.
func TestOneTTL(t *testing.T) {
	cfg := sample()[0]
	cfg.Mode = zone.Presigned
	sig := signature("t.example.test", zone.TypeTXT, "example.test")
	sig.TTL = 99
	for i, ttl := range []uint32{20, 10, 0} {
		r := zone.Text("t.example.test", string(rune('a'+i)))
		r.TTL = ttl
		cfg.Records = append(cfg.Records, r)
	}
	cfg.Records = append(cfg.Records, sig)
	z := mustBuild(t, cfg)
	n := 0
	for r := range z.Records("T.example.test") {
		n++
		if r.TTL != 10 {
			t.Errorf("type %d: TTL %d", r.Type, r.TTL)
		}
	}
	if n != 4 {
		t.Errorf("%d records", n)
	}
}
