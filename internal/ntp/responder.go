package ntp

import (
	"context"
	"net"
	"time"
)

// DefaultStratum is that of a host which tells its own clock (as chrony's "local stratum 10").
const DefaultStratum = 10

// Responder tells the host's clock to whoever asks. The zero value is ready.
type Responder struct {
	// Offset is added to the clock. Only tests want another value than 0.
	Offset time.Duration
	// Stratum to claim, 1 to 15. Default: DefaultStratum.
	Stratum uint8
}

// Serve answers on conn until ctx ends, then closes it and returns nil. It keeps nothing about clients. An answer is as
// long as the shortest question, so that it cannot amplify a forged one.
func (r *Responder) Serve(ctx context.Context, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }() // perhaps the second time
	buffer := make([]byte, 1024)
	for {
		n, client, err := conn.ReadFrom(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		received := r.now()
		if answer, ok := r.answer(buffer[:n], received); ok {
			_, _ = conn.WriteTo(answer, client) // a client that cannot be reached asks again
		}
	}
}

func (r *Responder) now() time.Time { return time.Now().Add(r.Offset) }

// answer makes the answer to one packet; only client packets of versions 1 to 4 get one (RFC 5905 section 9.2; RFC 4330
// section 6 says to repeat the version).
func (r *Responder) answer(data []byte, received time.Time) ([]byte, bool) {
	p, err := parse(data)
	if err != nil || p.mode != modeClient || p.version < 1 || p.version > version {
		return nil, false
	}
	stratum := r.Stratum
	if stratum == 0 {
		stratum = DefaultStratum
	}
	answer := packet{
		version: p.version, mode: modeServer, stratum: stratum, poll: p.poll,
		precision: -20, // 2^-20 s: about a microsecond
		// 127.127.1.1 is the reference id of a local clock by custom (ntpd's refclock type 1).
		referenceID: 0x7f7f0101, rootDispersion: 1 << 6, // about 1 ms
		reference: fromTime(received.Truncate(16 * time.Second)),
		origin:    p.transmit, receive: fromTime(received), transmit: fromTime(r.now()),
	}
	return answer.bytes(), true
}
