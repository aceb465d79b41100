package dnsserver

import (
	"context"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSocket: what arrives is read whether the poller sees the socket or not, what arrived before it did too, and nobody
// waits for a socket that is stopped.
func TestSocket(t *testing.T) {
	conn, _ := openUDP(t, "udp4", "127.0.0.1:0")
	peer, _ := openUDP(t, "udp4", "127.0.0.1:0")
	to := conn.LocalAddr().(*net.UDPAddr)
	s, err := newSocket(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	b := newBatch(false)
	var n int
	waits := make(chan bool, 1)
	read := func(uintptr) bool {
		var errno unix.Errno
		if n, errno = b.read(s.fd); errno == unix.EAGAIN {
			select {
			case waits <- true:
			default:
			}
			return false
		}
		return true
	}
	send := func() {
		t.Helper()
		if _, err := peer.WriteToUDP([]byte("x"), to); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		send()
		for _, on := range []bool{true, true, false, false, true} {
			if err := s.watch(on); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.read(read); err != nil || n != 1 {
			t.Fatalf("%d messages, %v", n, err)
		}
		go func() {
			<-waits
			send()
		}()
		if err := s.read(read); err != nil || n != 1 {
			t.Fatalf("%d messages, %v", n, err)
		}
		if err := s.watch(false); err != nil {
			t.Fatal(err)
		}
	}
	if !s.writable(t.Context()) {
		t.Error("not writable")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if s.writable(ended) {
		t.Error("writable when all has ended")
	}
	go func() {
		<-waits
		s.stop()
	}()
	if s.read(read) == nil {
		t.Error("reads after stop")
	}
}
