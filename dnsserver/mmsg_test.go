package dnsserver

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openUDP opens a UDP socket on an address, and returns it with its descriptor.
func openUDP(t *testing.T, network, address string) (*net.UDPConn, int) {
	t.Helper()
	conn, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var descriptor int
	if err := raw.Control(func(fd uintptr) { descriptor = int(fd) }); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UDPConn), descriptor
}

// TestBatch: what was sent is read with its source, and answers go where they belong; an answer that cannot be sent does
// not keep the others.
func TestBatch(t *testing.T) {
	for _, c := range []struct{ name, network, address, from string }{
		{"IPv4", "udp4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "udp6", "[::1]:0", "::1"},
		{"IPv4 on a socket of both", "udp", "[::]:0", "127.0.0.1"},
	} {
		server, fd := openUDP(t, c.network, c.address)
		client, _ := openUDP(t, "udp", net.JoinHostPort(c.from, "0"))
		to := netip.AddrPortFrom(netip.MustParseAddr(c.from), server.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		sent := [][]byte{[]byte("one"), []byte("two"), bytes.Repeat([]byte("x"), maxQuery+1), {}, []byte("three")}
		for _, msg := range sent {
			if _, err := client.WriteToUDPAddrPort(msg, to); err != nil {
				t.Fatal(err)
			}
		}
		b := newBatch(false)
		n, errno := b.read(fd)
		if errno != 0 || n != len(sent) {
			t.Fatalf("%s: %d messages, %v", c.name, n, errno)
		}
		for i, want := range sent {
			msg, cut := b.query(i)
			if cut != (len(want) > maxQuery) || !bytes.Equal(msg, want[:min(len(want), maxQuery)]) {
				t.Errorf("%s: message %d: %q, cut %v", c.name, i, msg, cut)
			}
			if from := b.source(i); from.Addr() != to.Addr() || from.Port() != client.LocalAddr().(*net.UDPAddr).AddrPort().Port() {
				t.Errorf("%s: message %d from %s", c.name, i, from)
			}
		}
		b.names[1].Port = 0
		for _, i := range []int{0, 1, 4} {
			msg, _ := b.query(i)
			b.answer(i, append(append(b.room(), "re: "...), msg...))
		}
		r := reader{batch: b, socket: &socket{fd: fd}}
		if done := r.write(t.Context()); !done || r.tally[statUnsent] != 1 {
			t.Errorf("%s: %v, %d unsent", c.name, done, r.tally[statUnsent])
		}
		buf := make([]byte, 100)
		for _, want := range []string{"re: one", "re: three"} {
			n, _, err := client.ReadFromUDPAddrPort(buf)
			if err != nil || string(buf[:n]) != want {
				t.Errorf("%s: %q, %v; want %q", c.name, buf[:n], err, want)
			}
		}
		b.reset(n)
		if _, errno := b.read(fd); errno != unix.EAGAIN {
			t.Errorf("%s: an empty socket: %v", c.name, errno)
		}
	}
}

// TestFullBatch: as many answers of the largest size as there are places.
func TestFullBatch(t *testing.T) {
	b := newBatch(true)
	for i := range batchSize {
		b.answer(i, append(b.room(), make([]byte, cap(b.room()))...))
	}
	if b.queued != batchSize || b.used != len(b.out) {
		t.Errorf("%d answers, %d octets", b.queued, b.used)
	}
}

// TestAnyInterface: control messages that the kernel would not have made are left alone.
func TestAnyInterface(t *testing.T) {
	for _, control := range [][]byte{nil, make([]byte, 15), make([]byte, 16), append([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0}, 1, 2, 3), {17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1}} {
		before := bytes.Clone(control)
		anyInterface(control)
		if !bytes.Equal(control, before) {
			t.Errorf("% x became % x", before, control)
		}
	}
	info := append([]byte{28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0}, 7, 0, 0, 0, 127, 0, 0, 9, 127, 0, 0, 9)
	if anyInterface(info); info[16] != 0 || info[20] != 127 {
		t.Errorf("% x", info)
	}
}
