package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/provisionr/provisionr/dnsserver/tsig"
	"github.com/provisionr/provisionr/dnsserver/zone"
)

// messageSize is how large the messages of a transfer are made, in octets; a record that is larger itself gets one of its own.
const messageSize = 32 << 10

// maxPointer is the largest offset that a compression pointer reaches (RFC 1035 section 4.1.4).
const maxPointer = 0x3fff

var errTooLarge = errors.New("a record does not fit a message with its signature")

// writer packs records into messages, signs and sends them. Owners are compressed, data is not.
type writer struct {
	ctx     context.Context
	send    func(msg []byte) error
	session *tsig.Session
	// head is the header and the question, opt the OPT record of the first message.
	head, opt []byte
	origin    []byte
	buf       []byte
	// names are the offsets of the names in the message that others may end in; last and lastAt are the owner before.
	names  map[string]uint16
	last   []byte
	lastAt int
	// count is the records in the message.
	count int

	records, octets, messages int
}

// newWriter makes a writer of answers to a query without its TSIG record, whose question's name is the zone's origin. The options
// are those of the first message.
func newWriter(ctx context.Context, q *zone.Query, query, options []byte, session *tsig.Session, send func([]byte) error) *writer {
	const answer, authoritative, recursionDesired = 0x80, 0x04, 0x01
	head := bytes.Clone(query[:headerSize+len(q.Name())+questionTail])
	head[2] = answer | authoritative | head[2]&recursionDesired
	head[3] = 0
	clear(head[6:headerSize])
	w := &writer{
		ctx: ctx, send: send, session: session, head: head, origin: bytes.Clone(q.Name()), names: map[string]uint16{},
		buf: make([]byte, 0, messageSize+512),
	}
	if q.EDNS() {
		var do byte
		if q.DO() {
			do = 0x80
		}
		w.opt = zone.WithOptions([]byte{0, 0, 41, zone.MaxUDP >> 8, zone.MaxUDP & 0xff, 0, 0, do, 0, 0, 0}, options)
	}
	w.begin()
	return w
}

// begin starts a message. Each repeats the question, so that owners can point to the origin in it.
func (w *writer) begin() {
	w.buf = append(w.buf[:0], w.head...)
	clear(w.names)
	w.last, w.count = w.last[:0], 0
	// A question in mixed case is not pointed to: the copy's names are to be spelled like ours.
	if bytes.Equal(w.head[headerSize:len(w.head)-questionTail], w.origin) {
		w.names[string(w.origin)] = headerSize
	}
}

// all writes records in the form of appendRecord.
func (w *writer) all(records []byte) error {
	for len(records) > 0 {
		owner, body, rest := cut(records)
		records = rest
		start := len(w.buf)
		w.put(owner, body)
		if w.size() > messageSize && w.count > 0 {
			w.buf = w.buf[:start]
			if err := w.flush(); err != nil {
				return err
			}
			w.put(owner, body)
		}
		w.count++
	}
	return nil
}

// put appends a record to the message.
func (w *writer) put(owner, body []byte) {
	at := len(w.buf)
	if bytes.Equal(w.last, owner) {
		w.buf = binary.BigEndian.AppendUint16(w.buf, 0xc000|uint16(w.lastAt))
	} else {
		w.buf = w.putOwner(w.buf, owner)
		w.last = w.last[:0]
		if at <= maxPointer {
			w.last, w.lastAt = append(w.last, owner...), at
		}
	}
	w.buf = append(w.buf, body...)
}

// putOwner appends a name, from the longest end on that the message already has as a pointer to that. What stands before is
// noted for others, but not the name as a whole unless it is the origin: names have their records together.
func (w *writer) putOwner(msg, owner []byte) []byte {
	for i := 0; owner[i] != 0; i += 1 + int(owner[i]) {
		if at, ok := w.names[string(owner[i:])]; ok {
			return binary.BigEndian.AppendUint16(msg, 0xc000|at)
		}
		if at := len(msg); at <= maxPointer && (i > 0 || len(owner) == len(w.origin)) {
			w.names[string(owner[i:])] = uint16(at)
		}
		msg = append(msg, owner[i:i+1+int(owner[i])]...)
	}
	return append(msg, 0)
}

// size returns how large the message is going to be.
func (w *writer) size() int { return len(w.buf) + len(w.opt) + w.session.Overhead() }

// flush sends the message and begins the next.
func (w *writer) flush() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.size() > zone.MaxMessage {
		return errTooLarge
	}
	w.buf = w.session.Sign(w.message(), time.Now())
	if err := w.send(w.buf); err != nil {
		return err
	}
	w.records += w.count
	w.octets += len(w.buf)
	w.messages++
	w.begin()
	return nil
}

// message ends the message and returns it, without a signature.
func (w *writer) message() []byte {
	binary.BigEndian.PutUint16(w.buf[6:], uint16(w.count))
	if w.opt != nil {
		binary.BigEndian.PutUint16(w.buf[10:], 1)
		w.buf = append(w.buf, w.opt...)
		w.opt = nil
	}
	return w.buf
}
