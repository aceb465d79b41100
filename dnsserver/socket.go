package dnsserver

import (
	"net"

	"golang.org/x/sys/unix"
)

// socket is a UDP socket that is not of the runtime's poller. In that, every answer that the kernel has sent would look for
// somebody who waits to write: a twentieth of what an answer costs. Here nobody is found while there is something to read.
type socket struct {
	fd int
	// stop is an eventfd of the server that is readable once the socket is to be used no more.
	stop int
}

// newSocket takes the socket of a connection, which it closes.
func newSocket(conn *net.UDPConn, stop int) (*socket, error) {
	defer conn.Close() // The socket stays open.
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{stop: stop}
	var dupErr error
	if err := raw.Control(func(fd uintptr) { s.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	return s, dupErr
}

// wait blocks until the socket is ready for an event of poll(2). It reports false where the server stops.
func (s *socket) wait(event int16) bool {
	fds := [...]unix.PollFd{{Fd: int32(s.fd), Events: event}, {Fd: int32(s.stop), Events: unix.POLLIN}}
	// An interrupted wait, or one for which there is no memory, is a short one.
	_, _ = unix.Poll(fds[:], -1)
	return fds[1].Revents == 0
}

func (s *socket) close() { _ = unix.Close(s.fd) }
