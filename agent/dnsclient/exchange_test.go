package dnsclient

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// query asks for the addresses of a name.
func query(t testing.TB, name string) []byte {
	t.Helper()
	q := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	octets, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

// answer says that there is no such name, with more octets behind it.
func answer(query []byte, more int) []byte {
	return append(zone.Failure(nil, query, zone.NameError), make([]byte, more)...)
}

// serve answers one query over a network with messages, one after the other, and returns where. It ends with the test.
func serve(t *testing.T, network string, replies func(query []byte) [][]byte) string {
	t.Helper()
	done := make(chan struct{})
	var address string
	var closer io.Closer
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		closer, address = conn, conn.LocalAddr().String()
		go func() {
			defer close(done)
			buf := make([]byte, 1024)
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, m := range replies(buf[:n]) {
				if _, err := conn.WriteTo(m, from); err != nil {
					t.Error(err)
				}
			}
		}()
	} else {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		closer, address = listener, listener.Addr().String()
		go func() {
			defer close(done)
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return
			}
			buf := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, buf); err != nil {
				return
			}
			for _, m := range replies(buf) {
				// The client may go after the first.
				_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
			}
		}()
	}
	t.Cleanup(func() {
		_ = closer.Close()
		<-done
	})
	return address
}

// wrong are messages that do not answer a query.
func wrong(query []byte) map[string][]byte {
	change := func(do func(m []byte)) []byte {
		m := answer(query, 0)
		do(m)
		return m
	}
	return map[string][]byte{
		"nothing": {}, "a header alone": answer(query, 0)[:headerSize], "a query": slices.Clone(query),
		"another id": change(func(m []byte) { m[1] ^= 1 }), "another opcode": change(func(m []byte) { m[2] |= 0x28 }),
		"another name": change(func(m []byte) { m[headerSize+1] ^= 1 }), "another type": change(func(m []byte) { m[len(m)-3] ^= 1 }),
		"no question": change(func(m []byte) { m[5] = 0 }), "two questions": change(func(m []byte) { m[5] = 2 }),
	}
}

func TestExchange(t *testing.T) {
	sent := query(t, "web-1.example.")
	for _, network := range []string{"udp", "tcp"} {
		address := serve(t, network, func(q []byte) [][]byte {
			if !bytes.Equal(q[2:], sent[2:]) {
				t.Errorf("asked %x, want %x", q, sent)
			}
			upper := answer(q, 0)
			copy(upper[headerSize:], strings.ToUpper(string(upper[headerSize:len(upper)-4])))
			return [][]byte{upper}
		})
		got, err := Exchange(t.Context(), network, address, sent)
		if err != nil || got[3]&0xf != byte(zone.NameError) || !bytes.Contains(got, []byte("WEB-1")) {
			t.Errorf("over %s: %x, %v", network, got, err)
		}
	}
}

// Over UDP what does not answer the question is passed over, over TCP it ends the exchange.
func TestAnswersToOthers(t *testing.T) {
	sent := query(t, "web-1.example.")
	address := serve(t, "udp", func(q []byte) (all [][]byte) {
		for _, m := range wrong(q) {
			all = append(all, m)
		}
		return append(all, answer(q, 1))
	})
	if got, err := Exchange(t.Context(), "udp", address, sent); err != nil || len(got) != len(sent)+1 {
		t.Errorf("%x, %v", got, err)
	}
	for name := range wrong(sent) {
		address := serve(t, "tcp", func(q []byte) [][]byte { return [][]byte{wrong(q)[name], answer(q, 0)} })
		if got, err := Exchange(t.Context(), "tcp", address, sent); !errors.Is(err, errAnswer) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

func TestLargeAnswers(t *testing.T) {
	sent := query(t, "web-1.example.")
	for _, c := range []struct {
		network string
		size    int
		cut     bool
	}{{"udp", MaxUDP, false}, {"udp", MaxUDP + 1, true}, {"udp", 2 * MaxUDP, true}, {"tcp", zone.MaxMessage, false}} {
		address := serve(t, c.network, func(q []byte) [][]byte {
			m := answer(q, c.size-len(q))
			m[2] |= 0x04
			m[3] |= 0x80
			return [][]byte{m}
		})
		got, err := Exchange(t.Context(), c.network, address, sent)
		if err != nil || (len(got) != c.size) != c.cut || (got[2]&0x02 != 0) != c.cut || got[2]&0x04 == 0 || got[3]&0x80 == 0 {
			t.Errorf("%d octets over %s: %d, flags %x, %v", c.size, c.network, len(got), got[2:4], err)
		}
	}
}

func TestExchangeEnds(t *testing.T) {
	sent := query(t, "web-1.example.")
	for _, network := range []string{"udp", "tcp"} {
		ctx, cancel := context.WithCancel(t.Context())
		address := serve(t, network, func([]byte) [][]byte {
			cancel()
			return nil
		})
		if got, err := Exchange(ctx, network, address, sent); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled over %s: %x, %v", network, got, err)
		}
	}
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got, err := Exchange(ctx, "udp", silent.LocalAddr().String(), sent); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silence: %x, %v", got, err)
	}
}

func TestExchangeRefuses(t *testing.T) {
	sent := query(t, "web-1.example.")
	for name, q := range map[string][]byte{"nothing": nil, "half a question": sent[:len(sent)-1], "an answer": answer(sent, 0)} {
		if _, err := Exchange(t.Context(), "udp", "127.0.0.1:1", q); !errors.Is(err, errQuery) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is taken for an answer has the whole question, and can be cut.
func FuzzAnswers(f *testing.F) {
	sent := query(f, "example.com.")
	_, question := zone.Key(sent)
	f.Add(answer(sent, 0))
	f.Add(answer(sent, 11))
	for _, m := range wrong(sent) {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		if !answers(m, sent, headerSize+question) {
			return
		}
		if out := Cut(m, sent); len(out) != len(sent) || !answers(out, sent, headerSize+question) || out[2]&0x02 == 0 {
			t.Errorf("%x is cut to %x", m, out)
		}
	})
}
