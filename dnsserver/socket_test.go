package dnsserver

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestSocketWaits: it is written at once, waits for what is to be read, and waits no more once the server stops.
func TestSocketWaits(t *testing.T) {
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stop)
	conn, _ := openUDP(t, "udp4", "127.0.0.1:0")
	peer, _ := openUDP(t, "udp4", "127.0.0.1:0")
	to := conn.LocalAddr()
	s, err := newSocket(conn, stop)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if !s.wait(unix.POLLOUT) {
		t.Error("stopped before it was told")
	}
	read := make(chan bool)
	go func() { read <- s.wait(unix.POLLIN) }()
	if _, err := peer.WriteTo([]byte("x"), to); err != nil {
		t.Fatal(err)
	}
	if !<-read {
		t.Error("stopped instead of reading")
	}
	if n, errno := newBatch(false).read(s.fd); n != 1 || errno != 0 {
		t.Errorf("%d messages, %v", n, errno)
	}
	go func() { read <- s.wait(unix.POLLIN) }()
	if _, err := unix.Write(stop, []byte{7: 1}); err != nil {
		t.Fatal(err)
	}
	if <-read || s.wait(unix.POLLOUT) {
		t.Error("does not stop")
	}
}
