package ntp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// Answer is one sample of a server's clock.
type Answer struct {
	// Offset is how far the server's clock is ahead of ours; its error is at most half of RTT.
	Offset time.Duration
	// RTT is the time on the network, without the server's own.
	RTT time.Duration
	// Stratum is the server's distance from a reference clock, 1 to 15.
	Stratum int
}

// timeout of a query whose context has no deadline.
const timeout = 5 * time.Second

// Query asks a server once. server is a host or an address, with a port where it is not [Port]. It waits for a valid
// answer until ctx ends, 5 s at most without a deadline; packets that are not the answer are ignored. A server that is not
// synchronised or refuses is an error.
func Query(ctx context.Context, server string) (Answer, error) {
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, strconv.Itoa(Port))
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	answer, err := query(ctx, server)
	if err != nil {
		return Answer{}, fmt.Errorf("cannot get time from %s: %w", server, err)
	}
	return answer, nil
}

func query(ctx context.Context, server string) (Answer, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", server)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = conn.Close() }() // nothing is buffered
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// A random transmit timestamp tells nobody our clock and cannot be guessed (RFC 9109 has the same reason for ports);
	// the server only repeats it.
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return Answer{}, err
	}
	question := packet{version: version, mode: modeClient, transmit: timestamp(binary.BigEndian.Uint64(nonce[:]))}
	sent := time.Now()
	if _, err := conn.Write(question.bytes()); err != nil {
		return Answer{}, err
	}
	buffer := make([]byte, 1024)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = errors.Join(errors.New("no answer"), ctx.Err())
			}
			return Answer{}, err
		}
		elapsed := time.Since(sent)
		p, err := parse(buffer[:n])
		if err != nil || p.mode != modeServer || p.origin != question.transmit {
			continue // not the answer to this question
		}
		return evaluate(p, sent, elapsed)
	}
}

// evaluate checks an answer and computes offset and delay (RFC 5905 section 8). elapsed comes from the monotonic clock: a
// step of the wall clock in between does no harm to it.
func evaluate(p packet, sent time.Time, elapsed time.Duration) (Answer, error) {
	switch {
	case p.stratum == 0:
		return Answer{}, fmt.Errorf("server refuses: kiss code %q", binary.BigEndian.AppendUint32(nil, p.referenceID))
	case p.leap == notSynchronised, p.stratum > maxStratum:
		return Answer{}, errors.New("server is not synchronised")
	case p.transmit == 0, p.receive == 0:
		return Answer{}, errors.New("server sent no time")
	case p.transmit.sub(p.receive) < 0:
		return Answer{}, errors.New("server's clock went backwards")
	}
	before, after := fromTime(sent), fromTime(sent.Add(elapsed))
	there, back := p.receive.sub(before), p.transmit.sub(after)
	return Answer{
		Offset:  there/2 + back/2,
		RTT:     max(0, elapsed-p.transmit.sub(p.receive)),
		Stratum: int(p.stratum),
	}, nil
}
