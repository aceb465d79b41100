package dnsserver

import (
	"context"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// openSocket opens a socket, and another one that sends to its address.
func openSocket(t *testing.T) (s *socket, peer *net.UDPConn, to *net.UDPAddr) {
	t.Helper()
	conn, _ := openUDP(t, "udp4", "127.0.0.1:0")
	peer, _ = openUDP(t, "udp4", "127.0.0.1:0")
	to = conn.LocalAddr().(*net.UDPAddr)
	s, err := newSocket(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s, peer, to
}

// TestSocket: what arrives is read whether the poller sees the socket or not, what arrived before it did too, and nobody
// waits for a socket that is stopped.
func TestSocket(t *testing.T) {
	s, peer, to := openSocket(t)
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

// TestStopClosesNothing: a reader that has not seen yet that it is to end changes no file that was opened since.
func TestStopClosesNothing(t *testing.T) {
	s, peer, to := openSocket(t)
	s.stop()
	other, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(other) }()
	if err := s.watch(true); err != nil {
		t.Error(err)
	}
	if _, err := peer.WriteToUDP([]byte("x"), to); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.EpollWait(other, make([]unix.EpollEvent, 1), 0); n != 0 || err != nil {
		t.Errorf("another epoll instance has %d events, %v", n, err)
	}
	if s.read(func(uintptr) bool { return true }) == nil {
		t.Error("reads after stop")
	}
}
