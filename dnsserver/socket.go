package dnsserver

import (
	"context"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a UDP socket, read and written without waiting until there is something to wait for.
//
// It is not of the runtime's poller. That would have the kernel look for who waits to write at every answer that it has
// sent, which is 6 % of all that an answer costs. In its place the poller has an epoll instance of the socket's own, which
// the socket is in while its reader finds less than it can read.
type socket struct {
	fd, epoll int
	watched   bool
	// poller waits for the epoll instance.
	poller *os.File
	raw    syscall.RawConn
}

// newSocket takes the socket of a connection, which it closes.
func newSocket(conn *net.UDPConn) (*socket, error) {
	defer conn.Close() // The socket stays open.
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := new(socket)
	var failed error
	if err := raw.Control(func(fd uintptr) { s.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, failed
	}
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		err = unix.SetNonblock(s.epoll, true)
		s.poller = os.NewFile(uintptr(s.epoll), "epoll")
	}
	if err == nil {
		s.raw, err = s.poller.SyscallConn()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// watch has the poller see what arrives, or not. What has arrived before is seen too.
func (s *socket) watch(on bool) error {
	if s.watched == on {
		return nil
	}
	op := unix.EPOLL_CTL_DEL
	if on {
		op = unix.EPOLL_CTL_ADD
	}
	err := unix.EpollCtl(s.epoll, op, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(s.fd)})
	if err == nil {
		s.watched = on
	}
	return err
}

// read calls a function that reads, whose argument means nothing, again whenever something arrives, until it returns true.
// After stop it fails.
func (s *socket) read(f func(uintptr) bool) error { return s.raw.Read(f) }

// writable waits until there is room for answers, for a while at most. It reports false when ctx has ended.
func (s *socket) writable(ctx context.Context) bool {
	// An interrupted wait, or one for which there is no memory, is a short one.
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, 100)
	return ctx.Err() == nil
}

// stop ends read, and may be called while others use the socket. It closes nothing: the number of a closed epoll instance can be
// that of another file before a reader with enough to read has seen that it is to end.
func (s *socket) stop() { _ = s.poller.SetReadDeadline(time.Unix(1, 0)) }

// close closes the socket, which nobody uses any more.
func (s *socket) close() {
	_ = s.poller.Close()
	_ = unix.Close(s.fd)
}
