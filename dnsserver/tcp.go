package dnsserver

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// acceptPause is how long accepting rests after an error such as too many open files.
const acceptPause = 50 * time.Millisecond

// serveTCP accepts until the listener is closed, and waits for the connections, which end with ctx.
func (s *Server) serveTCP(ctx context.Context, l *net.TCPListener) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.AcceptTCP()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if conn != nil {
				_ = conn.Close()
			}
			return nil
		case err != nil:
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case s.conns <- struct{}{}:
			open.Go(func() {
				defer func() { <-s.conns }()
				s.serveConn(ctx, conn)
			})
		default:
			_ = conn.Close()
		}
	}
}

// serveConn answers the queries of one connection in order, until it is idle, broken or ctx ends. Clients may send
// further queries before they have the answers (RFC 7766 section 6.2.1.1).
func (s *Server) serveConn(ctx context.Context, conn *net.TCPConn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	r := bufio.NewReaderSize(conn, 2048)
	var in, out []byte
	for {
		if conn.SetDeadline(time.Now().Add(s.cfg.IdleTimeout)) != nil {
			return
		}
		var prefix [2]byte
		if _, err := io.ReadFull(r, prefix[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(prefix[:]))
		if cap(in) < n {
			in = make([]byte, n)
		}
		in = in[:n]
		if _, err := io.ReadFull(r, in); err != nil {
			return
		}
		// The two octets in front are for the length.
		out = s.respondTCP(ctx, append(out[:0], 0, 0), in)
		if len(out) == 2 {
			return // Not a query: whoever speaks like that is not worth a connection.
		}
		binary.BigEndian.PutUint16(out, uint16(len(out)-2))
		if conn.SetDeadline(time.Now().Add(s.cfg.IdleTimeout)) != nil {
			return
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

func (s *Server) respondTCP(ctx context.Context, out, in []byte) []byte {
	answer, verdict := s.set.Load().Respond(out, in, true)
	switch {
	case verdict != zone.Foreign:
		return answer
	case s.cfg.Fallback == nil:
		return zone.Fail(out, in, zone.Refused)
	}
	return append(out, s.cfg.Fallback(ctx, in, true)...)
}
