package dnsserver

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

const (
	// batchSize is how many messages one system call reads or writes at most. Twice as many save few system calls and
	// touch twice as much memory between the halves of each message's way through the kernel: that is slower.
	batchSize = 32
	// maxQuery is the largest query over UDP that is read, in octets; more than we say that we take (zone.MaxUDP).
	maxQuery = 1536
	// stride is the distance of two queries in memory. That it is an odd number of cache lines spreads their heads over
	// the whole cache.
	stride = maxQuery + 64
	// controlSize holds the control messages with the packet's destination: a socket of both families gets two.
	controlSize = 128
)

// mmsghdr is struct mmsghdr (recvmmsg(2)).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// batch holds what one recvmmsg read and what one sendmmsg is to write. This file alone knows that the kernel sees its
// memory: nothing in it moves after newBatch, and every length that the kernel sets is bounded by the one given to it.
type batch struct {
	received, answers         [batchSize]mmsghdr
	receivedParts, answerPart [batchSize]unix.Iovec
	names                     [batchSize]unix.RawSockaddrInet6
	in, control               []byte
	// out holds the answers behind one another, so that short ones touch little memory.
	out    []byte
	used   int
	queued int
}

// newBatch makes the buffers of one reader; wildcard has packets come with the address that they were sent to.
func newBatch(wildcard bool) *batch {
	b := &batch{in: make([]byte, batchSize*stride), out: make([]byte, batchSize*zone.MaxUDP)}
	if wildcard {
		b.control = make([]byte, batchSize*controlSize)
	}
	for i := range batchSize {
		b.receivedParts[i].Base = &b.in[i*stride]
		b.receivedParts[i].SetLen(maxQuery)
		h := &b.received[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.receivedParts[i]
		h.SetIovlen(1)
		if wildcard {
			h.Control = &b.control[i*controlSize]
		}
		b.answers[i].hdr.Iov = &b.answerPart[i]
		b.answers[i].hdr.SetIovlen(1)
	}
	b.reset(batchSize)
	return b
}

// reset readies the first n places for another read and forgets the answers.
func (b *batch) reset(n int) {
	for i := range n {
		h := &b.received[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		if b.control != nil {
			h.SetControllen(controlSize)
		}
	}
	b.used, b.queued = 0, 0
}

// read reads what has arrived, without waiting.
func (b *batch) read(fd int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.received[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// query returns a message that was read, and whether it was longer.
func (b *batch) query(i int) (msg []byte, cut bool) {
	m := &b.received[i]
	return b.in[i*stride : i*stride+int(m.n)], m.hdr.Flags&unix.MSG_TRUNC != 0
}

// source returns who sent a message, IPv4 as such also where the socket takes both families.
func (b *batch) source(i int) netip.AddrPort {
	name := &b.names[i]
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), hostOrder(v4.Port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), hostOrder(name.Port))
}

func hostOrder(port uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&port))[:])
}

// room returns where to append the next answer.
func (b *batch) room() []byte { return b.out[b.used : b.used : b.used+zone.MaxUDP] }

// answer queues what was appended to room as the answer to message i, unless it is empty.
func (b *batch) answer(i int, msg []byte) {
	if len(msg) == 0 {
		return
	}
	b.used += len(msg)
	from, to := &b.received[i].hdr, &b.answers[b.queued].hdr
	b.answerPart[b.queued].Base = &msg[0]
	b.answerPart[b.queued].SetLen(len(msg))
	to.Name, to.Namelen = from.Name, from.Namelen
	if b.control != nil {
		to.Control, to.Controllen = from.Control, from.Controllen
		anyInterface(b.control[i*controlSize : i*controlSize+int(from.Controllen)])
	}
	b.queued++
}

// write sends queued answers from the given one on, without waiting, and returns how many went.
func (b *batch) write(fd, from int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.answers[from])), uintptr(b.queued-from), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// take returns a packet of its own memory for an answer that takes longer.
func (b *batch) take(i int, from netip.AddrPort) packet {
	msg, _ := b.query(i)
	p := packet{from: from, name: b.names[i], nameLen: b.received[i].hdr.Namelen, data: append([]byte(nil), msg...)}
	if b.control != nil {
		oob := b.control[i*controlSize : i*controlSize+int(b.received[i].hdr.Controllen)]
		p.control = append([]byte(nil), oob...)
		anyInterface(p.control)
	}
	return p
}

// packet is a query that waits for its answer, with the way back.
type packet struct {
	from          netip.AddrPort
	name          unix.RawSockaddrInet6
	nameLen       uint32
	control, data []byte
	// max and options are what its answer may be made of.
	max     int
	options []byte
}

// send sends an answer to the packet, without waiting.
func (p *packet) send(fd int, msg []byte) unix.Errno {
	part := unix.Iovec{Base: unsafe.SliceData(msg)}
	part.SetLen(len(msg))
	h := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&p.name)), Namelen: p.nameLen, Iov: &part}
	h.SetIovlen(1)
	if len(p.control) > 0 {
		h.Control = &p.control[0]
		h.SetControllen(len(p.control))
	}
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT)
	return errno
}

// anyInterface makes control messages that said where a packet arrived (ip(7) IP_PKTINFO, RFC 3542 section 6.1) into
// ones that say from which of our addresses to answer, by whichever way is right: only link-local addresses mean
// something on one interface alone.
func anyInterface(control []byte) {
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(control) {
			return
		}
		data := control[unix.CmsgLen(0):n]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			clear(data[:4])
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if !netip.AddrFrom16([16]byte(data[:16])).IsLinkLocalUnicast() {
				clear(data[16:20])
			}
		}
		control = control[min(unix.CmsgSpace(n-unix.CmsgLen(0)), len(control)):]
	}
}
