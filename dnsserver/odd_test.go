package dnsserver_test

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver"
)

// raw is a query in octets: header flags and counters, then the rest.
func raw(flags uint16, counts [4]uint16, rest ...byte) []byte {
	msg := binary.BigEndian.AppendUint16([]byte{0xbe, 0xef}, flags)
	for _, n := range counts {
		msg = binary.BigEndian.AppendUint16(msg, n)
	}
	return append(msg, rest...)
}

// host is the question for the address of h-0.example.test, opt an OPT record of a version with options.
func host(typ, class byte) []byte {
	return append([]byte("\x03h-0\x07example\x04test\x00"), 0, typ, 0, class)
}

func opt(version byte, options ...byte) []byte {
	return append([]byte{0, 0, 41, 4, 208, 0, version, 0, 0, 0, byte(len(options))}, options...)
}

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// silent is the code of what gets no answer.
const silent = -1

var odd = []struct {
	name string
	msg  []byte
	code int
	edns bool
}{
	{name: "a good query", msg: raw(0, [4]uint16{1}, host(1, 1)...), code: 0},
	{name: "with RD, AD, CD and Z", msg: raw(0x0170, [4]uint16{1}, host(1, 1)...), code: 0},
	{name: "with a code", msg: raw(0x0003, [4]uint16{1}, host(1, 1)...), code: 0},
	{name: "nothing", msg: nil, code: silent},
	{name: "eleven octets", msg: raw(0, [4]uint16{1})[:11], code: silent},
	{name: "an answer", msg: raw(0x8000, [4]uint16{1}, host(1, 1)...), code: silent},
	{name: "a header alone", msg: raw(0, [4]uint16{}), code: dns.RcodeFormatError},
	{name: "a question short of what is said", msg: raw(0, [4]uint16{1}), code: dns.RcodeFormatError},
	{name: "no question", msg: raw(0, [4]uint16{}, host(1, 1)...), code: dns.RcodeFormatError},
	{name: "two questions", msg: raw(0, [4]uint16{2}, join(host(1, 1), host(28, 1))...), code: dns.RcodeFormatError},
	{name: "cut in the name", msg: raw(0, [4]uint16{1}, host(1, 1)[:10]...), code: dns.RcodeFormatError},
	{name: "cut in the type", msg: raw(0, [4]uint16{1}, host(1, 1)[:19]...), code: dns.RcodeFormatError},
	{name: "octets behind it", msg: raw(0, [4]uint16{1}, append(host(1, 1), 1, 2, 3)...), code: dns.RcodeFormatError},
	{name: "a name that points to itself", msg: raw(0, [4]uint16{1}, 0xc0, 12, 0, 1, 0, 1), code: dns.RcodeFormatError},
	{name: "names that point to each other", msg: raw(0, [4]uint16{1}, 0xc0, 14, 0xc0, 12, 0, 1, 0, 1), code: dns.RcodeFormatError},
	{name: "a label of an unknown kind", msg: raw(0, [4]uint16{1}, 0x41, 1, 0, 0, 1, 0, 1), code: dns.RcodeFormatError},
	{name: "a name of 300 octets", msg: raw(0, [4]uint16{1}, join(long(300), []byte{0, 1, 0, 1})...), code: dns.RcodeFormatError},
	{name: "an unknown type", msg: raw(0, [4]uint16{1}, host(250-3, 1)...), code: 0},
	{name: "class CH", msg: raw(0, [4]uint16{1}, host(1, 3)...), code: dns.RcodeRefused},
	{name: "class NONE", msg: raw(0, [4]uint16{1}, host(1, 254)...), code: dns.RcodeRefused},
	{name: "opcode IQUERY", msg: raw(1<<11, [4]uint16{1}, host(1, 1)...), code: dns.RcodeNotImplemented},
	{name: "opcode STATUS", msg: raw(2<<11, [4]uint16{1}, host(1, 1)...), code: dns.RcodeNotImplemented},
	{name: "opcode 3", msg: raw(3<<11, [4]uint16{1}, host(1, 1)...), code: dns.RcodeNotImplemented},
	{name: "NOTIFY", msg: raw(4<<11, [4]uint16{1}, host(6, 1)...), code: dns.RcodeNotImplemented},
	{name: "UPDATE", msg: raw(5<<11, [4]uint16{1}, host(6, 1)...), code: dns.RcodeNotImplemented},
	{name: "opcode 15", msg: raw(15<<11, [4]uint16{1}, host(1, 1)...), code: dns.RcodeNotImplemented},
	{name: "UPDATE with EDNS", msg: raw(5<<11, [4]uint16{1, 0, 0, 1}, join(host(6, 1), opt(0))...), code: dns.RcodeNotImplemented, edns: true},
	{name: "EDNS", msg: raw(0, [4]uint16{1, 0, 0, 1}, join(host(1, 1), opt(0))...), code: 0, edns: true},
	{name: "EDNS version 1", msg: raw(0, [4]uint16{1, 0, 0, 1}, join(host(1, 1), opt(1))...), code: dns.RcodeBadVers, edns: true},
	{name: "two OPT records", msg: raw(0, [4]uint16{1, 0, 0, 2}, join(host(1, 1), opt(0), opt(0))...), code: dns.RcodeFormatError, edns: true},
	{name: "OPT among the answers", msg: raw(0, [4]uint16{1, 1}, join(host(1, 1), opt(0))...), code: dns.RcodeFormatError},
	{name: "OPT with an owner", msg: raw(0, [4]uint16{1, 0, 0, 1}, join(host(1, 1), []byte{1, 'x'}, opt(0))...), code: dns.RcodeFormatError},
	{name: "OPT cut", msg: raw(0, [4]uint16{1, 0, 0, 1}, join(host(1, 1), opt(0)[:8])...), code: dns.RcodeFormatError},
	{name: "an unknown option", msg: raw(0, [4]uint16{1, 0, 0, 1}, join(host(1, 1), opt(0, 0xff, 0xf0, 0, 1, 7))...), code: 0, edns: true},
	{name: "an option longer than OPT", msg: raw(0, [4]uint16{1, 0, 0, 1}, join(host(1, 1), opt(0, 0, 3, 0, 9))...), code: dns.RcodeFormatError, edns: true},
	{name: "a cookie of 7 octets", msg: raw(0, [4]uint16{1, 0, 0, 1}, join(host(1, 1), opt(0, 0, 10, 0, 7, 1, 2, 3, 4, 5, 6, 7))...), code: dns.RcodeFormatError, edns: true},
	{name: "a cookie of 12 octets", msg: raw(0, [4]uint16{1, 0, 0, 1}, join(host(1, 1), opt(0, 0, 10, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))...), code: dns.RcodeFormatError, edns: true},
	{name: "a record that is not there", msg: raw(0, [4]uint16{1, 0, 0, 1}, host(1, 1)...), code: dns.RcodeFormatError},
	{name: "an additional record", msg: raw(0, [4]uint16{1, 0, 0, 1}, join(host(1, 1), []byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4})...), code: 0},
	{name: "60000 records", msg: raw(0, [4]uint16{1, 0, 0, 60000}, host(1, 1)...), code: dns.RcodeFormatError},
	{name: "larger than is read", msg: raw(0, [4]uint16{1}, append(host(1, 1), make([]byte, 1700)...)...), code: dns.RcodeFormatError},
	{name: "larger than is read, over tcp too", msg: raw(0, [4]uint16{1}, append(host(1, 1), make([]byte, 9000)...)...), code: dns.RcodeFormatError},
}

func long(size int) (name []byte) {
	for len(name) < size-1 {
		name = append(append(name, 49), make([]byte, 49)...)
	}
	return append(name, 0)
}

// TestOddUDP and TestOddTCP: the answers that the RFCs ask for. After each the server answers a good query, so that
// silence is seen.
func TestOddUDP(t *testing.T) {
	s := start(t, dnsserver.Config{Readers: 1}, zoneWith(t, 1, 1))
	conn, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	next := raw(0, [4]uint16{1}, host(1, 1)...)
	next[0] = 0xff
	buf := make([]byte, 4096)
	for _, c := range odd {
		for _, msg := range [][]byte{c.msg, next} {
			if _, err := conn.Write(msg); err != nil {
				t.Fatal(err)
			}
		}
		code := silent
		for {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if buf[0] == 0xff {
				break
			}
			code = judge(t, c.name, c.msg, buf[:n], c.edns)
		}
		if code != c.code {
			t.Errorf("%s: code %d, want %d", c.name, code, c.code)
		}
	}
}

func TestOddTCP(t *testing.T) {
	s := start(t, dnsserver.Config{}, zoneWith(t, 1, 1))
	for _, c := range odd {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(c.msg))), c.msg...)); err != nil {
			t.Fatal(err)
		}
		code := silent
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err == nil {
			answer := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, answer); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			code = judge(t, c.name, c.msg, answer, c.edns)
		}
		if code != c.code {
			t.Errorf("%s: code %d, want %d", c.name, code, c.code)
		}
		_ = conn.Close()
	}
}

// judge returns the code of an answer.
func judge(t *testing.T, name string, msg, answer []byte, edns bool) int {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(answer); err != nil {
		t.Errorf("%s: % x: %v", name, answer, err)
		return silent
	}
	switch {
	case m.Id != 0xbeef || !m.Response || m.RecursionAvailable || m.AuthenticatedData || m.Zero:
		t.Errorf("%s: header %v", name, m.MsgHdr)
	case m.RecursionDesired != (msg[2]&1 != 0) || m.Opcode != int(msg[2]>>3&15):
		t.Errorf("%s: header %v", name, m.MsgHdr)
	case (m.IsEdns0() != nil) != edns:
		t.Errorf("%s: opt %v", name, m.IsEdns0())
	}
	return m.Rcode
}
