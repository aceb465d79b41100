package dnsserver_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

func dialTCP(t *testing.T, s *dnsserver.Server) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// framed is a message behind its length.
func framed(t *testing.T, m *dns.Msg) []byte {
	t.Helper()
	msg, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
}

// TestKeepalive: whoever speaks EDNS learns how long an idle connection is kept (RFC 7828).
func TestKeepalive(t *testing.T) {
	s := start(t, dnsserver.Config{IdleTimeout: 7300 * time.Millisecond}, zoneWith(t, 1, 1))
	c := dns.Conn{Conn: dialTCP(t, s)}
	if err := c.WriteMsg(question("h-0.example.test", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	r, err := c.ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	if k := option[*dns.EDNS0_TCP_KEEPALIVE](r); k == nil || k.Timeout != 73 {
		t.Error(r)
	}
	if r := ask(t, s, question("h-0.example.test", dns.TypeA)); option[*dns.EDNS0_TCP_KEEPALIVE](r) != nil {
		t.Errorf("over udp: %v", r)
	}
}

// TestPipelinedLarge: answers of far more octets than are gathered come whole and in order, whatever pieces the queries
// come in.
func TestPipelinedLarge(t *testing.T) {
	s := start(t, dnsserver.Config{}, zoneWith(t, 1, 250))
	conn := dialTCP(t, s)
	var all []byte
	const n = 200
	for id := range uint16(n) {
		m := question("all.example.test", dns.TypeA)
		m.Id = id
		all = append(all, framed(t, m)...)
	}
	go func() {
		for i := 0; i < len(all); i += 333 {
			if _, err := conn.Write(all[i:min(i+333, len(all))]); err != nil {
				return
			}
		}
	}()
	c := dns.Conn{Conn: conn}
	for id := range uint16(n) {
		r, err := c.ReadMsg()
		if err != nil || r.Id != id || len(r.Answer) != 250 {
			t.Fatalf("query %d: %v %v", id, r, err)
		}
	}
}

// TestSlowReader: a client that asks and never reads is let go, and holds up nobody.
func TestSlowReader(t *testing.T) {
	s := start(t, dnsserver.Config{IdleTimeout: 300 * time.Millisecond}, zoneWith(t, 1, 250))
	conn := dialTCP(t, s)
	if err := conn.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	query := bytes.Repeat(framed(t, question("all.example.test", dns.TypeA)), 100)
	var err error
	for err == nil {
		_, err = conn.Write(query) // Ends when the server has closed its side.
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
	if r := exchange(t, "tcp", s.Addr().String(), "h-0.example.test", dns.TypeA); len(r.Answer) != 1 {
		t.Error(r)
	}
}

// TestHalfClose: what was asked before the client closed its side is answered.
func TestHalfClose(t *testing.T) {
	s := start(t, dnsserver.Config{}, zoneWith(t, 1, 1))
	conn := dialTCP(t, s)
	query := framed(t, question("h-0.example.test", dns.TypeA))
	if _, err := conn.Write(append(bytes.Repeat(query, 3), 0)); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	for len(all) > 2 {
		n++
		all = all[2+int(binary.BigEndian.Uint16(all)):]
	}
	if n != 3 {
		t.Errorf("%d answers", n)
	}
}

// TestConnectionsOfOneSource: an unknown network may have a quarter of the connections, a known source all.
func TestConnectionsOfOneSource(t *testing.T) {
	s := start(t, dnsserver.Config{MaxConns: 12, Known: nobody}, zoneWith(t, 1, 1))
	query := framed(t, question("h-0.example.test", dns.TypeA))
	answered := func(conn net.Conn) bool {
		if _, err := conn.Write(query); err != nil {
			return false
		}
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return false
		}
		_, err := io.ReadFull(conn, make([]byte, binary.BigEndian.Uint16(size[:])))
		return err == nil
	}
	for i := range 5 {
		if got := answered(dialTCP(t, s)); got != (i < 3) {
			t.Errorf("connection %d: answered %v", i, got)
		}
	}
	other, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, 1)}}).Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if !answered(other) {
		t.Error("another source is not answered")
	}
	if got := s.Stats(); got.Connections != 4 || got.Rejected != 2 {
		t.Errorf("counted %+v", got)
	}
	known := start(t, dnsserver.Config{MaxConns: 12}, zoneWith(t, 1, 1))
	for i := range 12 {
		if !answered(dialTCP(t, known)) {
			t.Errorf("connection %d of a known source", i)
		}
	}
}

// TestOnline: the server adds its options to answers that are signed as they are asked for, and cuts what is too large.
func TestOnline(t *testing.T) {
	cfg := zone.Config{Origin: "signed.test", Serial: 1, TTL: 30, Mode: zone.Online, NS: []zone.NameServer{{Name: "ns.other.test"}}}
	z, err := zone.Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	online := func(_ context.Context, _ *zone.Set, query []byte, _ bool) []byte {
		m := new(dns.Msg)
		if m.Unpack(query) != nil {
			return nil
		}
		r := new(dns.Msg).SetReply(m)
		texts := 1
		if m.Question[0].Name == "large.signed.test." {
			texts = 20
		}
		for range texts {
			r.Answer = append(r.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT, Class: 1}, Txt: []string{"some text that takes room"}})
		}
		r.SetEdns0(1232, true)
		out, err := r.Pack()
		if err != nil {
			t.Error(err)
		}
		return out
	}
	s := start(t, dnsserver.Config{Known: nobody, Cookies: twoSecrets, Online: online, ID: "me"}, z)
	signed := func(name string, options ...dns.EDNS0) *dns.Msg {
		m := question(name, dns.TypeTXT, options...)
		m.IsEdns0().SetDo()
		return m
	}
	nsid := &dns.EDNS0_NSID{Code: dns.EDNS0NSID}
	r := ask(t, s, signed("small.signed.test", nsid, cookie("0011223344556677")))
	if len(r.Answer) != 1 || option[*dns.EDNS0_NSID](r) == nil || option[*dns.EDNS0_COOKIE](r) == nil {
		t.Error(r)
	}
	if r := ask(t, s, signed("large.signed.test")); !r.Truncated || len(r.Answer) != 0 || r.IsEdns0() == nil {
		t.Error(r)
	}
	tcp := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	if r, _, err := tcp.Exchange(signed("large.signed.test"), s.Addr().String()); err != nil || len(r.Answer) != 20 || option[*dns.EDNS0_TCP_KEEPALIVE](r) == nil {
		t.Errorf("%v %v", r, err)
	}
	without := start(t, dnsserver.Config{}, z)
	if r := ask(t, without, signed("small.signed.test")); r.Rcode != dns.RcodeServerFailure {
		t.Error(r)
	}
}

// TestManyReaders: the kernel spreads clients over the sockets of one address, and each answers.
func TestManyReaders(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0"} {
		s := start(t, dnsserver.Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort(at)}, Readers: 4}, zoneWith(t, 1, 1))
		to := s.Addr()
		if to.Addr().IsUnspecified() {
			to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
		}
		for range 32 {
			if r := exchange(t, "udp", to.String(), "h-0.example.test", dns.TypeA); len(r.Answer) != 1 {
				t.Fatalf("%s: %v", at, r)
			}
		}
		if got := s.Stats(); got.Queries != 32 || got.Positive != 32 {
			t.Errorf("%s: counted %+v", at, got)
		}
	}
}
