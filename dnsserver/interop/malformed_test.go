//go:build machine

package interop

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/miekg/dns"
)

// Offsets of the header's fields.
const (
	headerSize = 12
	atQuestion = 4
	atAnswer   = 6
	atOther    = 8
	atExtra    = 10
)

// base returns a short query that is well-formed, with an OPT record or without.
func (g *generator) base(edns bool) []byte {
	m := new(dns.Msg)
	m.Id = uint16(g.Uint32())
	m.Question = []dns.Question{{Name: fmt.Sprintf("web-%d.%s", 1+g.IntN(hosts), plainOrigin), Qtype: dns.TypeA, Qclass: dns.ClassINET}}
	m.RecursionDesired = g.IntN(2) == 0
	if edns {
		m.SetEdns0(1232, g.IntN(4) == 0)
	}
	return wire(m)
}

// with returns a query with a header field set and octets behind it.
func with(msg []byte, field int, value uint16, tail ...byte) []byte {
	msg = append(slices.Clone(msg), tail...)
	binary.BigEndian.PutUint16(msg[field:], value)
	return msg
}

// opt makes an OPT record.
func opt(version byte, data ...byte) []byte {
	rr := []byte{0, 0, byte(dns.TypeOPT), 1232 >> 8, 1232 & 0xff, 0, version, 0, 0}
	return append(binary.BigEndian.AppendUint16(rr, uint16(len(data))), data...)
}

// record makes an A record whose owner is the question's.
func record(typ uint16, data ...byte) []byte {
	rr := binary.BigEndian.AppendUint16([]byte{0xc0, headerSize}, typ)
	rr = append(rr, 0, 1, 0, 0, 0, 9)
	return append(binary.BigEndian.AppendUint16(rr, uint16(len(data))), data...)
}

// malformed adds n rounds of everything that is wrong with a query.
func (g *generator) malformed(n int) {
	for range n {
		g.headers()
		g.names()
		g.options()
		g.records()
		g.sizes()
		for range 10 {
			g.mutant()
		}
	}
}

func (g *generator) headers() {
	edns := g.IntN(2) == 0
	msg := g.base(edns)
	g.add("cut", msg[:g.IntN(len(msg))])
	g.add("response", with(msg, 2, binary.BigEndian.Uint16(msg[2:])|0x8000))
	header, plain := msg[:headerSize:headerSize], g.base(false)
	g.add("no question", with(header, atQuestion, 0))
	g.add("no question", with(with(header, atQuestion, 0), atExtra, 1, opt(0)...))
	g.add("no question", with(with(header, atQuestion, 0), atExtra, 1, opt(0, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8)...))
	g.add("question not counted", with(msg, atQuestion, 0))
	g.add("two questions", with(plain, atQuestion, 2, plain[headerSize:]...))
	g.add("two questions", with(plain, atQuestion, 2, g.base(false)[headerSize:]...))
	g.add("question missing", with(msg, atQuestion, uint16(2+g.IntN(65000))))
	opcode := uint16(1 + g.IntN(15))
	g.add(fmt.Sprintf("opcode %d", opcode), with(msg, 2, binary.BigEndian.Uint16(msg[2:])|opcode<<11))
	g.add("opcode and flags", with(plain, 2, 0x0730|8<<11))
	g.add("opcode and flags", with(plain, 2, 0x0630|4<<11))
	other := with(plain, 2, opcode<<11)
	other[len(other)-2] = 0xf7
	g.add("opcode and class", other)
	for _, field := range []int{atAnswer, atOther, atExtra} {
		g.add("record missing", with(plain, field, uint16(1+g.IntN(3))))
	}
}

func (g *generator) names() {
	msg := g.base(false)
	tail := []byte{0, 1, 0, 1}
	question := func(name ...byte) []byte { return append(append(msg[:headerSize:headerSize], name...), tail...) }
	g.add("loop", question(0xc0, headerSize))
	g.add("loop", question(1, 'a', 0xc0, headerSize))
	g.add("loop", question(0xc0, headerSize+2, 0xc0, headerSize))
	g.add("pointer ahead", question(0xc0, headerSize+6+byte(g.IntN(20))))
	g.add("pointer into header", question(0xc0, byte(g.IntN(headerSize))))
	g.add("label type", question(0x40|byte(g.IntN(64)), 'a', 0))
	g.add("label type", question(0x80|byte(g.IntN(64)), 'a', 0))
	var long []byte
	for range 4 {
		long = append(append(long, 63), make([]byte, 63)...)
	}
	g.add("long name", question(append(long, 0)...))
	// The longest name that there may be has 255 octets.
	g.add("longest name", question(append(append(append(slices.Clone(long[:3*64]), 61), make([]byte, 61)...), 0)...))
	g.add("label over the end", append(msg[:headerSize:headerSize], 40, 'a', 'b'))
}

func (g *generator) options() {
	msg := g.base(false)
	one := func(kind string, tail []byte) { g.add(kind, with(msg, atExtra, 1, tail...)) }
	one("edns version", opt(byte(1+g.IntN(255))))
	one("edns version", opt(1, 0xfd, 0xe9, 0, 2, 1, 2))
	one("edns version and option cut", opt(1, 0xfd, 0xe9, 0))
	nsid := opt(1, 0, 3, 0, 0)
	nsid[7] = 0x80
	g.add("edns version, DO, NSID and CD", with(with(msg, 2, 0x0010), atExtra, 1, nsid...))
	g.add("two opt", with(msg, atExtra, 2, append(opt(0), opt(0)...)...))
	g.add("two opt", with(msg, atExtra, 2, append(opt(0), opt(1)...)...))
	one("option over the end", opt(0, 0xfd, 0xe9, 0, 9, 1))
	one("option head cut", opt(0, 0xfd, 0xe9, 0))
	one("opt over the end", append(opt(0)[:9], 0, byte(1+g.IntN(200)), 1))
	one("opt with a name", append([]byte{1, 'a'}, opt(0)...))
	flags := opt(0)
	flags[8] = byte(1 + g.IntN(255))
	one("edns flags", flags)
	code := opt(0)
	code[5] = byte(1 + g.IntN(255))
	one("edns rcode", code)
	g.add("opt elsewhere", with(msg, pick(g, atAnswer, atOther), 1, opt(0)...))
	size := pick(g, 0, 1, 7, 9, 15, 16, 24, 40, 41)
	cookie := append([]byte{0, 10, 0, byte(size)}, make([]byte, size)...)
	one(fmt.Sprintf("cookie of %d", size), opt(0, cookie...))
}

func (g *generator) records() {
	msg := g.base(g.IntN(2) == 0)
	plain := g.base(false)
	g.add("answer in a query", with(plain, atAnswer, 1, record(dns.TypeA, 192, 0, 2, 9)...))
	g.add("authority in a query", with(plain, atOther, 1, record(dns.TypeA, 192, 0, 2, 9)...))
	g.add("additional in a query", with(plain, atExtra, 1, record(dns.TypeA, 192, 0, 2, 9)...))
	nowhere := record(dns.TypeA, 192, 0, 2, 9)
	nowhere[0] = 0xff
	g.add("record of no name", with(plain, atExtra, 1, nowhere...))
	g.add("malformed record", with(plain, atExtra, 1, record(dns.TypeMX, 1)...))
	g.add("additional after opt", with(plain, atExtra, 2, append(opt(0), record(dns.TypeA, 192, 0, 2, 9)...)...))
	g.add("rdata over the end", with(plain, atExtra, 1, append(record(dns.TypeA)[:10], 0, 4, 1)...))
	junk := make([]byte, 1+g.IntN(20))
	for i := range junk {
		junk[i] = byte(g.Uint32())
	}
	g.add("trailing octets", append(slices.Clone(msg), junk...))
	m := new(dns.Msg)
	if err := m.Unpack(plain); err == nil {
		m.SetTsig("nobody.", dns.HmacSHA256, 300, 1700000000)
		sig := m.Extra[0].(*dns.TSIG)
		sig.MAC, sig.MACSize, sig.OrigId = fmt.Sprintf("%064x", 1), 32, m.Id
		g.add("unknown key", wire(m))
		m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{1, 2, 3, 4}})
		g.add("tsig not last", wire(m))
	}
	g.add("tsig cut", with(plain, atExtra, 1, record(dns.TypeTSIG, 1, 2, 3)...))
}

// sizes adds what is larger than queries are.
func (g *generator) sizes() {
	for _, size := range []int{1300, 3000, 4040, 8000, 30000} {
		size += g.IntN(20)
		data := append([]byte{0, dns.EDNS0PADDING, byte(size >> 8), byte(size)}, make([]byte, size)...)
		g.add(fmt.Sprintf("oversized %d", size/1000), with(g.base(false), atExtra, 1, opt(0, data...)...))
	}
}

// mutant adds a query some of whose octets are others.
func (g *generator) mutant() {
	msg := slices.Clone(wire(g.question()))
	for range 1 + g.IntN(3) {
		msg[2+g.IntN(len(msg)-2)] = byte(g.Uint32())
	}
	g.add("mutant", msg)
}
