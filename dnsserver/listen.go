package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketBuffer is the size asked for each UDP socket's queues, in octets; the kernel may give less
// (net.core.rmem_max, unless we may exceed it). It rides out a scheduling delay of some milliseconds.
const socketBuffer = 2 << 20

// listener is the sockets of one address: a UDP socket for each reader, among which the kernel spreads clients.
type listener struct {
	udp []*socket
	tcp *net.TCPListener
	// wildcard says that answers must name their source address, since the socket has none.
	wildcard bool
}

func (l *listener) close() {
	for _, socket := range l.udp {
		socket.close()
	}
	_ = l.tcp.Close()
}

func (s *Server) listen(ctx context.Context) (listeners []*listener, err error) {
	for _, addr := range s.cfg.Addrs {
		l, err := open(ctx, addr, s.cfg.Readers)
		if err != nil {
			for _, l := range listeners {
				l.close()
			}
			return nil, fmt.Errorf("cannot listen for dns on %s: %w", addr, err)
		}
		listeners = append(listeners, l)
		s.addrs = append(s.addrs, netip.AddrPortFrom(addr.Addr(), uint16(l.tcp.Addr().(*net.TCPAddr).Port)))
	}
	return listeners, nil
}

// open opens all sockets of an address. With port 0 the kernel picks for TCP; that UDP has the same one free is likely
// but not certain, so it is tried a few times. TCP comes first: its port cannot be shared, so that a second server fails
// here instead of taking half of the queries.
func open(ctx context.Context, addr netip.AddrPort, readers int) (*listener, error) {
	for range 8 {
		var lc net.ListenConfig
		tcp, err := lc.Listen(ctx, network("tcp", addr.Addr()), addr.String())
		if err != nil {
			return nil, err
		}
		l := &listener{tcp: tcp.(*net.TCPListener), wildcard: addr.Addr().IsUnspecified()}
		port := uint16(tcp.Addr().(*net.TCPAddr).Port)
		if err = l.openUDP(ctx, netip.AddrPortFrom(addr.Addr(), port), readers); err == nil {
			return l, nil
		}
		l.close()
		if addr.Port() != 0 {
			return nil, err
		}
	}
	return nil, errors.New("no port free for both udp and tcp")
}

// network names the protocol for one family, or for both where the address is [::].
func network(protocol string, addr netip.Addr) string {
	if addr.Is4() {
		return protocol + "4"
	}
	return protocol
}

func (l *listener) openUDP(ctx context.Context, addr netip.AddrPort, readers int) error {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) { err = tune(int(fd), readers > 1, l.wildcard) }); e != nil {
			return e
		}
		return err
	}}
	for range readers {
		conn, err := lc.ListenPacket(ctx, network("udp", addr.Addr()), addr.String())
		if err != nil {
			return err
		}
		socket, err := newSocket(conn.(*net.UDPConn))
		if err != nil {
			return err
		}
		l.udp = append(l.udp, socket)
	}
	return nil
}

// tune sets the options of a UDP socket before it is bound.
func tune(fd int, shared, wildcard bool) error {
	if shared {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
	}
	for _, o := range []struct{ force, plain int }{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.force, socketBuffer) != nil {
			// Smaller buffers lose more in bursts, no more.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.plain, socketBuffer)
		}
	}
	// No answer is fragmented, and forged ICMP does not talk us into it: in fragments, answers can be forged (RFC 9715).
	// A socket knows only the options of its families.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	if !wildcard {
		return nil
	}
	v4 := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	v6 := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	if v4 != nil && v6 != nil {
		return errors.Join(v4, v6)
	}
	return nil
}
