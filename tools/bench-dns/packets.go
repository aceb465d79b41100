package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file alone talks to the kernel by addresses: sendmmsg(2) and recvmmsg(2) have no other form.

// window is how many queries each socket has on their way at most.
const window = 64

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
}

// socket is a connected UDP socket with what it sends and receives in one call.
type socket struct {
	fd       int
	out, in  [window]message
	outParts [window]unix.Iovec
	inParts  [window]unix.Iovec
	room     [window][1500]byte
}

func openSocket(port int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a socket: %w", err)
	}
	s := &socket{fd: fd}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot connect to port %d: %w", port, err)
	}
	for i := range window {
		s.inParts[i].Base = &s.room[i][0]
		s.inParts[i].SetLen(len(s.room[i]))
		s.in[i].header.Iov, s.in[i].header.Iovlen = &s.inParts[i], 1
		s.out[i].header.Iov, s.out[i].header.Iovlen = &s.outParts[i], 1
	}
	return s, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// put makes a packet the i-th to send.
func (s *socket) put(i int, packet []byte) {
	s.outParts[i].Base = &packet[0]
	s.outParts[i].SetLen(len(packet))
}

// send sends the first n packets and returns how many were taken.
func (s *socket) send(n int) int { return s.call(unix.SYS_SENDMMSG, &s.out, n) }

// receive returns how many packets there were; packet(i) is each.
func (s *socket) receive() int { return s.call(unix.SYS_RECVMMSG, &s.in, window) }

func (s *socket) packet(i int) []byte { return s.room[i][:s.in[i].length] }

// call does not tell errors: none is there but those of a server that does not listen or has no room, which show in the figures.
func (s *socket) call(number uintptr, messages *[window]message, n int) int {
	done, _, errno := unix.RawSyscall6(number, uintptr(s.fd), uintptr(unsafe.Pointer(messages)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(done)
}
