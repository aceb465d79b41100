package dnsclient

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// MaxUDP is the largest answer over UDP that is taken whole, in octets.
const MaxUDP = 4096

const headerSize = 12

var (
	errQuery  = errors.New("not a query with one question")
	errAnswer = errors.New("the answer is not one to the question")
)

// Exchange sends a query with one question to a server, under an id and from a port of its own, and returns the answer, which
// has that id. Network is "udp" or "tcp", server a host and port. Over UDP, what does not answer the question is passed over,
// and an answer of more than [MaxUDP] octets comes as [Cut] makes it. When ctx ends, its error is returned.
func Exchange(ctx context.Context, network, server string, query []byte) ([]byte, error) {
	key, question := zone.Key(query)
	if key == "" {
		return nil, errQuery
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, server)
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
	exchange := overUDP
	if network == "tcp" {
		exchange = overTCP
	}
	answer, err := exchange(conn, own, headerSize+question)
	if err != nil {
		return nil, cmp.Or(ctx.Err(), err)
	}
	return answer, nil
}

func overUDP(conn net.Conn, query []byte, end int) ([]byte, error) {
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, MaxUDP+1)
	for {
		n, err := conn.Read(buf)
		switch {
		case err != nil:
			return nil, err
		case !answers(buf[:n], query, end):
		case n > MaxUDP:
			return Cut(buf[:n], query), nil
		default:
			return slices.Clone(buf[:n]), nil
		}
	}
}

func overTCP(conn net.Conn, query []byte, end int) ([]byte, error) {
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
	if !answers(answer, query, end) {
		return nil, errAnswer
	}
	return answer, nil
}

// Cut makes an answer to a query, one that [Exchange] takes, that says that another answer to it is too large for UDP. It keeps
// that one's AA and RA: with neither, and no records, it would be a referral to some resolvers.
func Cut(answer, query []byte) []byte {
	const aa, tc, ra = 0x04, 0x02, 0x80
	out := zone.Failure(nil, query, zone.Success)
	out[2] |= answer[2]&aa | tc
	out[3] |= answer[3] & ra
	return out
}

// answers reports whether a message is a response to a query, whose question ends at an offset: its id, its opcode and its
// question, spelt in any case.
func answers(answer, query []byte, end int) bool {
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
