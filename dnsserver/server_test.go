package dnsserver_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/provisionr/provisionr/dnsserver"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func zoneWith(t testing.TB, serial uint32, hosts int) *zone.Zone {
	t.Helper()
	cfg := zone.Config{Origin: "example.test", Serial: serial, TTL: 30, NS: []zone.NameServer{{Name: "ns.example.test", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}}}
	for i := range hosts {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(serial), byte(i)})
		cfg.Records = append(cfg.Records, zone.Address(fmt.Sprintf("h-%d.example.test", i), addr), zone.Address("all.example.test", addr))
	}
	z, err := zone.Build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// start runs a server with zones until the test ends.
func start(t testing.TB, cfg dnsserver.Config, zones ...*zone.Zone) *dnsserver.Server {
	t.Helper()
	s := listening(t, cfg)
	if err := s.Set(zones); err != nil {
		t.Fatal(err)
	}
	return s
}

// listening runs a server without zones until the test ends.
func listening(t testing.TB, cfg dnsserver.Config) *dnsserver.Server {
	t.Helper()
	if cfg.Addrs == nil {
		cfg.Addrs = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := dnsserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("run: %v", err)
	}
	return s
}

func exchange(t *testing.T, network, addr, name string, typ uint16) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	r, _, err := c.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), typ), addr)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBothTransports(t *testing.T) {
	s := start(t, dnsserver.Config{}, zoneWith(t, 1, 200))
	addr := s.Addr().String()
	for _, network := range []string{"udp", "tcp"} {
		if r := exchange(t, network, addr, "h-3.example.test", dns.TypeA); len(r.Answer) != 1 || !r.Authoritative || r.RecursionAvailable {
			t.Errorf("%s: %v", network, r)
		}
		if r := exchange(t, network, addr, "nope.example.test", dns.TypeA); r.Rcode != dns.RcodeNameError || len(r.Ns) != 1 {
			t.Errorf("%s: %v", network, r)
		}
		if r := exchange(t, network, addr, "example.com", dns.TypeA); r.Rcode != dns.RcodeRefused {
			t.Errorf("%s: %v", network, r)
		}
	}
	if r := exchange(t, "udp", addr, "all.example.test", dns.TypeA); !r.Truncated || len(r.Answer) != 0 {
		t.Errorf("over udp: %v", r.MsgHdr)
	}
	if r := exchange(t, "tcp", addr, "all.example.test", dns.TypeA); r.Truncated || len(r.Answer) != 200 {
		t.Errorf("over tcp: %d answers", len(r.Answer))
	}
}

// TestSwap: every answer is of one set of zones while they are replaced.
func TestSwap(t *testing.T) {
	s := start(t, dnsserver.Config{}, zoneWith(t, 1, 1))
	old, fresh := zoneWith(t, 1, 1), zoneWith(t, 2, 1)
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for range 100 {
				r, err := dns.Exchange(new(dns.Msg).SetQuestion("h-0.example.test.", dns.TypeA), s.Addr().String())
				if err != nil || len(r.Answer) != 1 {
					t.Errorf("%v %v", err, r)
					return
				}
			}
		})
	}
	for range 100 {
		for _, z := range []*zone.Zone{old, fresh} {
			if err := s.Set([]*zone.Zone{z}); err != nil {
				t.Error(err)
			}
		}
	}
	group.Wait()
	r := exchange(t, "udp", s.Addr().String(), "example.test", dns.TypeSOA)
	if got := r.Answer[0].(*dns.SOA).Serial; got != 2 {
		t.Errorf("serial %d", got)
	}
	if err := s.Set([]*zone.Zone{old, old}); err == nil {
		t.Error("two zones of one origin")
	}
}

func TestPipelining(t *testing.T) {
	s := start(t, dnsserver.Config{}, zoneWith(t, 1, 1))
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var all []byte
	for id := range uint16(20) {
		m := new(dns.Msg).SetQuestion("h-0.example.test.", dns.TypeA)
		m.Id = id
		q, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(q))), q...)
	}
	if _, err := conn.Write(all); err != nil {
		t.Fatal(err)
	}
	c := dns.Conn{Conn: conn}
	for id := range uint16(20) {
		r, err := c.ReadMsg()
		if err != nil || r.Id != id || len(r.Answer) != 1 {
			t.Fatalf("query %d: %v %v", id, r, err)
		}
	}
}

func TestConnectionBounds(t *testing.T) {
	s := start(t, dnsserver.Config{MaxConns: 1, IdleTimeout: 200 * time.Millisecond}, zoneWith(t, 1, 1))
	first, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	c := dns.Conn{Conn: first}
	if err := c.WriteMsg(new(dns.Msg).SetQuestion("h-0.example.test.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadMsg(); err != nil {
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for name, conn := range map[string]net.Conn{"second is closed at once": second, "first is closed when idle": first} {
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var timeout net.Error
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWildcard: the answer comes from the address that was asked, also where the socket is bound to none.
func TestWildcard(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0"} {
		s := start(t, dnsserver.Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort(addr)}}, zoneWith(t, 1, 1))
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), s.Addr().Port())
		if r := exchange(t, "udp", at.String(), "h-0.example.test", dns.TypeA); len(r.Answer) != 1 {
			t.Errorf("%s: %v", addr, r)
		}
	}
}

func TestFallback(t *testing.T) {
	s := start(t, dnsserver.Config{Fallback: func(_ context.Context, query []byte, _ bool) []byte {
		return zone.Failure(nil, query, zone.ServerFailure)
	}}, zoneWith(t, 1, 1))
	for _, network := range []string{"udp", "tcp"} {
		if r := exchange(t, network, s.Addr().String(), "example.com", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %v", network, r)
		}
		if r := exchange(t, network, s.Addr().String(), "h-0.example.test", dns.TypeA); len(r.Answer) != 1 {
			t.Errorf("%s: %v", network, r)
		}
	}
}

// TestRandomBytes: whatever arrives, the server lives and answers the next query.
func TestRandomBytes(t *testing.T) {
	s := start(t, dnsserver.Config{}, zoneWith(t, 1, 1))
	rnd := rand.New(rand.NewPCG(1, 2))
	udp, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for i := range 500 {
		junk := make([]byte, rnd.IntN(200))
		for j := range junk {
			junk[j] = byte(rnd.Uint32())
		}
		// The socket may report that an earlier answer was refused.
		_, _ = udp.Write(junk)
		if i%25 != 0 {
			continue
		}
		tcp, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = tcp.Write(junk)
		_ = tcp.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, tcp)
		_ = tcp.Close()
	}
	// The burst may have filled the socket's buffer, and then a datagram is lost: a resolver asks again.
	query := new(dns.Msg).SetQuestion("h-0.example.test.", dns.TypeA)
	client := dns.Client{Net: "udp", Timeout: time.Second}
	var r *dns.Msg
	for range 5 {
		if r, _, err = client.Exchange(query, s.Addr().String()); err == nil {
			break
		}
	}
	if err != nil || len(r.Answer) != 1 {
		t.Errorf("%v, %v", r, err)
	}
}

func TestNewRefuses(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	for name, cfg := range map[string]dnsserver.Config{
		"no address": {Logger: logger},
		"no logger":  {Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}},
		"invalid":    {Logger: logger, Addrs: make([]netip.AddrPort, 1)},
	} {
		if _, err := dnsserver.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAddressInUse(t *testing.T) {
	s := start(t, dnsserver.Config{})
	second, err := dnsserver.New(dnsserver.Config{Addrs: []netip.AddrPort{s.Addr()}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil {
		t.Error("two servers on one address")
	}
}
