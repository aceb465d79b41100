package zone_test

import (
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// seeds are messages of many kinds, well-formed and not.
func seeds(t rapid.TB) (messages [][]byte) {
	for _, m := range []*dns.Msg{
		question("zk-1.example.test", dns.TypeA), question("EXAMPLE.test", dns.TypeNS), question("nope.example.test", dns.TypeANY),
		question("store.example.test", dns.TypeAAAA), question("_zk._tcp.zk.example.test", dns.TypeSRV), question("example.test", dns.TypeAXFR),
		question("round.example.test", dns.TypeTXT), question("zk-1.example.test", dns.TypeRRSIG), question(`\000.example.test`, dns.TypeA),
		new(dns.Msg).SetNotify("example.test."), new(dns.Msg).SetIxfr("example.test.", 1, "a.", "b."), new(dns.Msg).SetUpdate("example.test."),
	} {
		plain := pack(t, m)
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}}
		edns := pack(t, m)
		m.IsEdns0().SetVersion(1)
		version := pack(t, m)
		m.SetTsig("key.", dns.HmacSHA256, 300, 0)
		messages = append(messages, plain, edns, version, pack(t, m), edns[:len(edns)-3], slices.Concat(plain[:12], []byte("\xc0\x0c"), plain[len(plain)-4:]))
	}
	return messages
}

// FuzzParse: no octets crash the parser, which reads what the reference's library reads.
func FuzzParse(f *testing.F) {
	for _, m := range seeds(f) {
		f.Add(m)
	}
	var q zone.Query
	f.Fuzz(func(t *testing.T, msg []byte) {
		verdict := zone.Parse(msg, &q)
		if again := new(zone.Query); zone.Parse(msg, again) != verdict || again.Code() != q.Code() {
			t.Fatalf("verdict %d depends on the query before", verdict)
		}
		if verdict == zone.Drop {
			return
		}
		if verdict != zone.Fail && q.Code() != zone.Success {
			t.Fatalf("verdict %d with code %d", verdict, q.Code())
		}
		if key, _ := zone.Key(msg); (key != "") != (verdict == zone.Ask) {
			t.Fatalf("verdict %d with key %q", verdict, key)
		}
		zone.CapTTL(slices.Clone(msg), 1)
		var m dns.Msg
		if m.Unpack(msg) != nil || verdict == zone.Fail {
			return
		}
		name, _, err := dns.UnpackDomainName(q.Name(), 0)
		if err != nil || len(m.Question) != 1 || name != strings.ToLower(m.Question[0].Name) || uint16(q.Type()) != m.Question[0].Qtype {
			t.Fatalf("%s %d, want %v (%v)", name, q.Type(), m.Question, err)
		}
		if opt := m.IsEdns0(); (opt != nil) != q.EDNS() || opt != nil && (opt.Do() != q.DO() || q.Size() != max(int(opt.UDPSize()), zone.MinUDP)) {
			t.Fatalf("EDNS %v %v %d, want %v", q.EDNS(), q.DO(), q.Size(), opt)
		}
		if q.Signed() != (m.IsTsig() != nil) || q.Opcode() != m.Opcode || q.Len() != len(msg) {
			t.Fatalf("signed %v, opcode %d", q.Signed(), q.Opcode())
		}
	})
}

// FuzzAnswer: what is answered is well-formed, bounded and belongs to the query; and where a query is one that the
// reference understands, the answer is the reference's.
func FuzzAnswer(f *testing.F) {
	for i, m := range seeds(f) {
		f.Add(m, uint16(100*i), i%3 == 0)
	}
	cfgs := sample()
	ref, plain := newReference(cfgs), sampleSet(f)
	signed := mustSet(f, presigned(f, cfgs[0]), presigned(f, cfgs[1]))
	f.Fuzz(func(t *testing.T, msg []byte, most uint16, sign bool) {
		var q zone.Query
		set, r := plain, zone.Reply{Max: max(int(most), 12), Options: make([]byte, most%64)}
		if sign {
			set = signed
		}
		for i := 0; i+4 <= len(r.Options); i += 4 {
			copy(r.Options[i:], "\xff\xf0\x00\x00")
		}
		r.Options = r.Options[:len(r.Options)/4*4]
		out, outcome := []byte("before"), zone.Foreign
		verdict := zone.Parse(msg, &q)
		if verdict == zone.Ask {
			out, outcome = set.Answer(out, &q, &r)
		}
		if outcome == zone.Foreign {
			out = q.Refuse(out, zone.Refused, &r)
		}
		answer := out[len("before"):]
		if (verdict == zone.Drop) != (len(answer) == 0) || len(answer) > r.Max {
			t.Fatalf("verdict %d with %d octets of %d", verdict, len(answer), r.Max)
		}
		if verdict == zone.Drop {
			return
		}
		var got dns.Msg
		if err := got.Unpack(answer); err != nil {
			t.Fatalf("answer does not parse: %v", err)
		}
		if !got.Response || answer[0] != msg[0] || answer[1] != msg[1] || got.Truncated != (outcome == zone.Truncated) {
			t.Fatalf("outcome %d: %v", outcome, got.MsgHdr)
		}
		var m dns.Msg
		if outcome == zone.Foreign || outcome == zone.Truncated || m.Unpack(msg) != nil || strings.Contains(m.Question[0].Name, `\`) {
			return
		}
		if sign {
			return // RRSIG and NSEC are not the reference's.
		}
		want := ref.answer(m.Question[0].Name, m.Question[0].Qtype)
		if diff := gocmp.Diff(want.Answer, folded(got.Answer)); diff != "" || want.Code != got.Rcode {
			t.Fatalf("%s: code %d, want %d; answer (-want +got):\n%s", m.Question[0].String(), got.Rcode, want.Code, diff)
		}
	})
}

// FuzzZone: no records crash the builder; what it takes it answers and gives back.
func FuzzZone(f *testing.F) {
	for _, cfg := range sample() {
		for _, r := range cfg.Records {
			f.Add(r.Name, uint16(r.Type), r.TTL, r.Data, uint8(1))
		}
	}
	f.Add("a.example.test", uint16(zone.TypeNSEC), uint32(0), []byte("\x01b\x00\x00\x01\x40"), uint8(3))
	base := mustBuild(f, sample()[0])
	f.Fuzz(func(t *testing.T, name string, typ uint16, ttl uint32, data []byte, times uint8) {
		change := zone.Change{Name: name}
		for i := range times {
			change.Records = append(change.Records, zone.Record{Name: name, Type: zone.Type(typ), TTL: ttl, Data: append(slices.Clone(data), make([]byte, i)...)})
		}
		z, err := base.With(8, []zone.Change{change})
		if err != nil {
			return
		}
		held := 0
		for r := range z.Records(name) {
			if uint16(r.Type) == typ {
				held++
			}
		}
		if held < len(change.Records) {
			t.Fatalf("%d records of %d", held, len(change.Records))
		}
		if gone, err := z.With(9, []zone.Change{{Name: name}}); err != nil || gone.Len() > z.Len() {
			t.Fatalf("%d names of %d: %v", gone.Len(), z.Len(), err)
		}
	})
}
