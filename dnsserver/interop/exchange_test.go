//go:build machine

package interop

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	// patience is how long the answer to the question that follows a probe is waited for, and tries how often.
	patience = 5 * time.Second
	tries    = 3
	// workers ask one server at a time.
	workers = 12
)

// outcome is what came back for a probe.
type outcome struct {
	// answer is nil where there was none.
	answer []byte
	// closed says that the connection was, before the next question was answered.
	closed bool
	err    error
}

// server is one that is asked.
type server struct {
	name string
	addr netip.AddrPort
	// grace is how long a probe's answer may come after the one to the question that followed it: ours answers over UDP in
	// another order where the answer takes longer.
	grace time.Duration
}

// askAll sends all probes to a server, over UDP or TCP, and returns the outcomes in the probes' order.
func askAll(t *testing.T, s server, probes []probe, tcp bool) []outcome {
	t.Helper()
	ask := askUDP
	if tcp {
		ask = askTCP
	}
	outcomes := make([]outcome, len(probes))
	next := make(chan int)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := range next {
				for range tries {
					if outcomes[i] = ask(s, probes[i].msg); outcomes[i].err == nil {
						break
					}
				}
			}
		})
	}
	for i := range probes {
		next <- i
	}
	close(next)
	group.Wait()
	for i, o := range outcomes {
		if o.err != nil {
			t.Fatalf("%s over %s: %v", probes[i], network(tcp), o.err)
		}
	}
	return outcomes
}

func network(tcp bool) string {
	if tcp {
		return "TCP"
	}
	return "UDP"
}

// marker returns the question that follows a probe and its id: servers answer in order, so that who answers it, and not
// the probe, is silent about the probe.
func marker(msg []byte) ([]byte, uint16) {
	id := uint16(0x5aa5)
	if len(msg) >= 2 {
		id ^= binary.BigEndian.Uint16(msg)
	}
	m := new(dns.Msg)
	m.SetQuestion(plainOrigin, dns.TypeSOA)
	m.Id = id
	wire, err := m.Pack()
	if err != nil {
		panic(err) // It is the same message every time.
	}
	return wire, id
}

func askUDP(s server, msg []byte) (o outcome) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.addr))
	if err != nil {
		return outcome{err: err}
	}
	defer func() { _ = conn.Close() }()
	after, id := marker(msg)
	for _, m := range [][]byte{msg, after} {
		if _, err := conn.Write(m); err != nil {
			return outcome{err: err}
		}
	}
	deadline, marked := time.Now().Add(patience), false
	buf := make([]byte, dns.MaxMsgSize)
	for {
		if err := conn.SetReadDeadline(deadline); err != nil {
			return outcome{err: err}
		}
		n, err := conn.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && marked:
			return o
		case err != nil:
			return outcome{err: err}
		case n >= 2 && binary.BigEndian.Uint16(buf) == id:
			if o.answer != nil {
				return o
			}
			marked, deadline = true, time.Now().Add(s.grace)
		default:
			if o.answer = append([]byte(nil), buf[:n]...); marked {
				return o
			}
		}
	}
}

func askTCP(s server, msg []byte) (o outcome) {
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(s.addr))
	if err != nil {
		return outcome{err: err}
	}
	defer func() { _ = conn.Close() }()
	after, id := marker(msg)
	var stream []byte
	for _, m := range [][]byte{msg, after} {
		stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(m))), m...)
	}
	if _, err := conn.Write(stream); err != nil {
		return outcome{err: err}
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return outcome{err: err}
	}
	for {
		var size [2]byte
		_, err := io.ReadFull(conn, size[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return outcome{err: err}
		case err != nil: // An end, or a reset where there was more to read.
			o.closed = true
			return o
		}
		m := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, m); err != nil {
			return outcome{err: err}
		}
		if len(m) >= 2 && binary.BigEndian.Uint16(m) == id {
			return o
		}
		if o.answer == nil { // Of a transfer, the first message.
			o.answer = m
		}
	}
}
