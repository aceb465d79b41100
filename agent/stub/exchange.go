package stub

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

const headerSize = 12

// maxAnswer is the largest answer over UDP that is given on, in octets.
const maxAnswer = 4096

var errAnswer = errors.New("the answer is not one to the question")

// exchange sends a query to one server, under an id and from a port of its own, and returns the answer. Over UDP, what
// does not answer the question is passed over (RFC 5452).
func exchange(ctx context.Context, server netip.AddrPort, query []byte, question int, tcp bool, timeout time.Duration) ([]byte, error) {
	network := "udp"
	if tcp {
		network = "tcp"
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	// Closing ends a read or write that waits.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	own := slices.Clone(query)
	if _, err := rand.Read(own[:2]); err != nil {
		return nil, err
	}
	if tcp {
		return exchangeTCP(conn, own, question)
	}
	return exchangeUDP(conn, own, question)
}

func exchangeUDP(conn net.Conn, query []byte, question int) ([]byte, error) {
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, maxAnswer+1)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if !answers(buf[:n], query, question) {
			continue
		}
		if n > maxAnswer {
			return cut(buf[:n], query), nil
		}
		return slices.Clone(buf[:n]), nil
	}
}

// cut makes an answer to a query that says that another is too large for UDP. It keeps that one's AA and RA: with neither,
// and no records, it would be a referral to some resolvers.
func cut(answer, query []byte) []byte {
	const aa, tc, ra = 0x04, 0x02, 0x80
	out := zone.Failure(nil, query, zone.Success)
	out[2] |= answer[2]&aa | tc
	out[3] |= answer[3] & ra
	return out
}

func exchangeTCP(conn net.Conn, query []byte, question int) ([]byte, error) {
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	if !answers(answer, query, question) {
		return nil, errAnswer
	}
	return answer, nil
}

// answers reports whether a message is a response to a query: its id, its opcode and its question, spelt in any case.
func answers(answer, query []byte, question int) bool {
	end := headerSize + question
	return len(answer) >= end && answer[0] == query[0] && answer[1] == query[1] && answer[2]&0x80 != 0 && answer[2]&0x78 == 0 &&
		answer[4] == 0 && answer[5] == 1 && equalFold(answer[headerSize:end], query[headerSize:end])
}

// equalFold compares octets, ASCII letters in either case alike (RFC 4343).
func equalFold(a, b []byte) bool {
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}
