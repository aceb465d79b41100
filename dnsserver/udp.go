package dnsserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// maxQuery is the largest query over UDP that is read, in octets; longer ones are cut and so answered FORMERR.
const maxQuery = 4096

// oobSize holds the control messages with the packet's destination: a socket of both families gets two.
const oobSize = 128

// serveUDP reads and answers until the socket is closed.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn, wildcard bool) error {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	in, out := make([]byte, maxQuery), make([]byte, 0, zone.MaxUDP)
	var oob []byte
	if wildcard {
		oob = make([]byte, oobSize)
	}
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(in, oob)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// An error of one packet, as an ICMP unreachable of an earlier answer, says nothing about the socket.
			continue
		}
		answer, verdict := s.set.Load().Respond(out, in[:n], false)
		if verdict == zone.Foreign && s.cfg.Fallback != nil {
			s.fallbackUDP(ctx, &waiting, packet{conn, from, slices.Clone(oob[:oobn]), slices.Clone(in[:n])})
			continue
		}
		if verdict == zone.Foreign {
			answer = zone.Fail(out, in[:n], zone.Refused)
		}
		if len(answer) > 0 {
			// A lost answer is what UDP clients are ready for; they ask again.
			_, _, _ = conn.WriteMsgUDPAddrPort(answer, oob[:oobn], from)
		}
	}
}

// packet is a query that waits for the fallback, with the way back.
type packet struct {
	conn *net.UDPConn
	from netip.AddrPort
	oob  []byte
	data []byte
}

func (s *Server) fallbackUDP(ctx context.Context, waiting *sync.WaitGroup, p packet) {
	select {
	case s.fallbacks <- struct{}{}:
	default:
		return
	}
	waiting.Go(func() {
		defer func() { <-s.fallbacks }()
		if answer := s.cfg.Fallback(ctx, p.data, false); len(answer) > 0 {
			_, _, _ = p.conn.WriteMsgUDPAddrPort(answer, p.oob, p.from)
		}
	})
}

// requestPacketInfo has the kernel say at which of our addresses a packet arrived (ip(7) IP_PKTINFO, RFC 3542 section
// 6.1). The same control message, sent with the answer, makes that address its source; clients drop others.
func requestPacketInfo(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var v4, v6 error
	err = raw.Control(func(fd uintptr) {
		v4 = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		v6 = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	// A socket of one family knows only one of the options; a dual one both.
	if err == nil && v4 != nil && v6 != nil {
		err = errors.Join(v4, v6)
	}
	return err
}
