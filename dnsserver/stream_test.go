package dnsserver

import (
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// piped runs f with the client's end of a connection, in time that passes only when all wait, and returns how long the
// server kept it.
func piped(t *testing.T, taken int, f func(conn net.Conn, query []byte)) (kept time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Logger: slog.New(slog.DiscardHandler), MaxConns: 16})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Set([]*zone.Zone{build(t, 3)}); err != nil {
			t.Fatal(err)
		}
		from := netip.MustParseAddrPort("192.0.2.1:53")
		for range taken {
			s.conns.add(from.Addr(), true)
		}
		msg, err := new(dns.Msg).SetQuestion("all.example.test.", dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		client, server := net.Pipe()
		began := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.serveConn(t.Context(), server, from)
			kept = time.Since(began)
		}()
		f(client, append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
		<-done
		_ = client.Close()
	})
	return kept
}

// read reads one answer.
func read(t *testing.T, conn net.Conn) {
	t.Helper()
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, binary.BigEndian.Uint16(size[:]))); err != nil {
		t.Fatal(err)
	}
}

// TestPatience: how long the server waits for clients.
func TestPatience(t *testing.T) {
	for _, c := range []struct {
		name  string
		taken int
		f     func(conn net.Conn, query []byte)
		want  time.Duration
	}{
		{name: "says nothing", f: func(net.Conn, []byte) {}, want: 10 * time.Second},
		{name: "says nothing when connections are scarce", taken: 13, f: func(net.Conn, []byte) {}, want: 2500 * time.Millisecond},
		{name: "sends an octet a second", f: func(conn net.Conn, query []byte) {
			for i := range query {
				if _, err := conn.Write(query[i : i+1]); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, want: 10 * time.Second},
		{name: "asks every nine seconds", f: func(conn net.Conn, query []byte) {
			for range 5 {
				time.Sleep(9 * time.Second)
				if _, err := conn.Write(query); err != nil {
					t.Error(err)
				}
				read(t, conn)
			}
		}, want: 55 * time.Second},
		{name: "does not read", f: func(conn net.Conn, query []byte) {
			if _, err := conn.Write(query); err != nil {
				t.Error(err)
			}
		}, want: 10 * time.Second},
		{name: "reads an octet a second", f: func(conn net.Conn, query []byte) {
			if _, err := conn.Write(query); err != nil {
				t.Error(err)
			}
			for {
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, want: 10 * time.Second},
	} {
		if got := piped(t, c.taken, c.f); got != c.want {
			t.Errorf("a client that %s is kept for %s, want %s", c.name, got, c.want)
		}
	}
}
