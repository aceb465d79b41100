package dnsserver

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

const (
	// maxStreamQuery is the largest query over TCP that is looked at, in octets; longer ones are cut and so answered
	// FORMERR.
	maxStreamQuery = 4096
	// maxPending is how many octets of answers to pipelined queries are gathered before they are written.
	maxPending = 16 << 10
	lengthSize = 2
)

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
			pause(ctx)
			continue
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		known := s.known(from.Addr())
		if !s.conns.add(from.Addr(), known) {
			s.counters[0].n[statRejected].Add(1)
			_ = conn.Close()
			continue
		}
		s.counters[0].n[statConnections].Add(1)
		open.Go(func() {
			defer s.conns.remove(from.Addr(), known)
			s.serveConn(ctx, conn, from)
		})
	}
}

// serveConn answers the queries of one connection in order, until it is idle, broken or ctx ends. Clients may send
// further queries before they have the answers (RFC 7766 section 6.2.1.1).
func (s *Server) serveConn(ctx context.Context, conn net.Conn, from netip.AddrPort) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	st := stream{responder: responder{s: s, tcp: true}, conn: conn, from: from, r: bufio.NewReaderSize(conn, 1024)}
	defer func() { s.counters[0].add(&st.tally) }()
	for st.next(ctx) == nil {
		s.counters[0].add(&st.tally)
	}
}

// stream is one TCP connection.
type stream struct {
	responder
	conn net.Conn
	from netip.AddrPort
	r    *bufio.Reader
	// query shadows the responder's reference to it.
	query zone.Query
	// in is the query, out the answers that are not written yet, each behind its length.
	in, out []byte
}

// errSilent ends a connection whose client does not speak DNS.
var errSilent = errors.New("not a query")

// next reads one query and answers it. Answers are gathered while there are complete queries to read.
func (st *stream) next(ctx context.Context) error {
	if !st.pending() {
		if err := st.flush(); err != nil {
			return err
		}
	}
	cut, err := st.read()
	if err != nil {
		return err
	}
	st.tally[statTCP]++
	st.refresh(time.Now())
	start := len(st.out)
	out, next := st.respond(append(st.out, 0, 0), &st.query, zone.Parse(st.in, &st.query), cut, st.from.Addr())
	st.settle()
	st.out, st.set = out, nil // Whoever idles keeps no zones alive that nobody serves any more.
	if next == stepDone {
		return st.finish(start)
	}
	if st.out = st.out[:start]; st.flush() != nil {
		return errSilent
	}
	switch s := st.s; next {
	case stepFallback:
		return st.send(s.cfg.Fallback(ctx, st.in, true))
	case stepOnline:
		return st.send(zone.WithOptions(s.cfg.Online(ctx, s.set.Load(), st.in, true), st.reply.Options))
	default:
		return s.cfg.Special(ctx, st.from, st.in, true, st.reply.Options, st.send)
	}
}

// pending reports whether the next query has arrived and there is room for its answer.
func (st *stream) pending() bool {
	if len(st.out) >= maxPending || st.r.Buffered() < lengthSize {
		return false
	}
	head, err := st.r.Peek(lengthSize)
	return err == nil && st.r.Buffered() >= lengthSize+int(binary.BigEndian.Uint16(head))
}

// read reads a query, which has the idle time to arrive whole. It reports whether it was cut.
func (st *stream) read() (cut bool, err error) {
	if !st.pending() {
		idle := st.s.cfg.IdleTimeout
		if st.s.conns.scarce() {
			idle /= 4
		}
		if err := st.conn.SetReadDeadline(time.Now().Add(idle)); err != nil {
			return false, err
		}
	}
	var prefix [lengthSize]byte
	if _, err := io.ReadFull(st.r, prefix[:]); err != nil {
		return false, err
	}
	size := int(binary.BigEndian.Uint16(prefix[:]))
	n := min(size, maxStreamQuery)
	if cap(st.in) < n {
		st.in = make([]byte, n)
	}
	st.in = st.in[:n]
	if _, err := io.ReadFull(st.r, st.in); err != nil {
		return false, err
	}
	_, err = st.r.Discard(size - n)
	return size > n, err
}

// finish writes the length of the answer at start; without an answer the connection ends.
func (st *stream) finish(start int) error {
	n := len(st.out) - start - lengthSize
	if n == 0 {
		st.out = st.out[:start]
		if err := st.flush(); err != nil {
			return err
		}
		return errSilent
	}
	binary.BigEndian.PutUint16(st.out[start:], uint16(n))
	return nil
}

// send writes one message.
func (st *stream) send(msg []byte) error {
	switch {
	case len(msg) == 0:
		return errSilent
	case len(msg) > zone.MaxMessage:
		return ErrTooLarge
	}
	st.out = append(binary.BigEndian.AppendUint16(st.out[:0], uint16(len(msg))), msg...)
	return st.flush()
}

// flush writes the answers. The client has the idle time to make room for them.
func (st *stream) flush() error {
	if len(st.out) == 0 {
		return nil
	}
	if err := st.conn.SetWriteDeadline(time.Now().Add(st.s.cfg.IdleTimeout)); err != nil {
		return err
	}
	_, err := st.conn.Write(st.out)
	if st.out = st.out[:0]; cap(st.out) > 2*maxPending {
		st.out = nil // A connection that had one large answer does not keep its memory.
	}
	return err
}
