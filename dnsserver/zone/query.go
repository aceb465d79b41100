package zone

import "encoding/binary"

// Query is a parsed query. It refers to the message that it was parsed from, and may be parsed into again.
type Query struct {
	msg    []byte
	cookie []byte
	// end is the offset behind the question, 0 where none was read.
	end uint16
	// size is the sender's UDP limit.
	size    uint16
	typ     Type
	class   uint16
	code    Rcode
	version uint8
	// do and compact are the OPT flags of RFC 3225 and RFC 9824.
	edns, do, compact, nsid, signed bool
	nameLen                         uint8
	place                           place
	// name is the question's in lower case. The slack lets whole words be written.
	name [maxName + 9]byte
}

// Verdict says what a message is.
type Verdict uint8

const (
	// Drop: not a query; it gets no answer.
	Drop Verdict = iota
	// Fail: a query that is answered with nothing but [Query.Code].
	Fail
	// Ask: a well-formed question, to be looked up.
	Ask
	// Special: a well-formed message that is more than a question: a transfer, a NOTIFY, or anything with a TSIG record.
	Special
)

// Parse reads a query into q, whose former content does not matter. It does not allocate.
func Parse(msg []byte, q *Query) Verdict {
	q.place = place{}
	q.msg, q.end, q.size, q.nameLen = nil, 0, 0, 0
	q.cookie, q.typ, q.class, q.code, q.version = nil, 0, 0, Success, 0
	q.edns, q.do, q.compact, q.nsid, q.signed = false, false, false, false, false
	if len(msg) < headerSize || len(msg) > MaxMessage || msg[2]&flagQR != 0 {
		return Drop
	}
	q.msg = msg
	opcode := q.Opcode()
	off, questions := headerSize, binary.BigEndian.Uint16(msg[4:])
	switch {
	case opcode != OpcodeQuery && opcode != OpcodeNotify:
		return q.unknown(questions)
	case questions > 1: // RFC 9619
		return q.fail(FormatError)
	case questions == 1:
		if off = q.parseQuestion(msg); off == 0 {
			return q.fail(FormatError)
		}
		q.end = uint16(off)
	}
	if !q.parseRecords(msg, off) {
		q.cookie = nil
		return q.fail(FormatError) // With an OPT record where there was one (RFC 6891 section 7).
	}
	switch {
	case questions == 0 && opcode == OpcodeQuery && q.cookie != nil && q.version == 0 && !q.signed:
		return q.fail(Success) // RFC 7873 section 5.4: a question for nothing but a cookie.
	case questions == 0:
		return q.fail(FormatError)
	case q.signed:
		return Special
	case q.edns && q.version != 0:
		return q.fail(BadVersion)
	case opcode == OpcodeNotify, q.typ == TypeAXFR, q.typ == TypeIXFR:
		return Special
	}
	return Ask
}

func (q *Query) fail(code Rcode) Verdict {
	q.code = code
	return Fail
}

// unknown is the verdict on other opcodes. Where the message has the form of a query, its question and the fact that it has
// an OPT record count (RFC 6891 section 6.1.1).
func (q *Query) unknown(questions uint16) Verdict {
	if questions == 1 {
		if off := q.parseQuestion(q.msg); off != 0 {
			q.end = uint16(off)
			q.parseRecords(q.msg, off)
		}
	}
	q.cookie = nil
	return q.fail(NotImplemented)
}

// parseQuestion reads the question and returns the offset behind it, 0 if it is malformed.
func (q *Query) parseQuestion(msg []byte) int {
	off := headerSize
	for {
		if off >= len(msg) {
			return 0
		}
		n := int(msg[off])
		off++
		if n == 0 {
			break
		}
		if off += n; n > maxLabel {
			return 0
		}
	}
	size := off - headerSize
	if size > maxName || off+questionTail > len(msg) {
		return 0
	}
	q.nameLen = uint8(size)
	lowerInto(&q.name, msg[headerSize:], size)
	q.typ = Type(binary.BigEndian.Uint16(msg[off:]))
	q.class = binary.BigEndian.Uint16(msg[off+2:])
	return off + questionTail
}

// lowerInto copies at least size octets of src in lower case, eight at a time. Length octets are no letters.
func lowerInto(dst *[maxName + 9]byte, src []byte, size int) {
	if whole := (size + 7) &^ 7; whole <= len(src) {
		for from, to := src[:whole], dst[:]; len(from) >= 8 && len(to) >= 8; from, to = from[8:], to[8:] {
			v := binary.LittleEndian.Uint64(from)
			seven := v & 0x7f7f7f7f7f7f7f7f
			// The top bit of each octet of the sums says that it is at least 'A', and above 'Z'.
			letters := (seven + 0x3f3f3f3f3f3f3f3f) ^ (seven + 0x2525252525252525)
			binary.LittleEndian.PutUint64(to, v|letters&^v&0x8080808080808080>>2)
		}
		return
	}
	for i, c := range src[:size] {
		dst[i] = lower(c)
	}
}

// parseRecords walks the records behind the question, of which OPT (RFC 6891) and TSIG (RFC 8945) mean something.
func (q *Query) parseRecords(msg []byte, off int) bool {
	before := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:]))
	total := before + int(binary.BigEndian.Uint16(msg[10:]))
	if total == 1 && before == 0 && len(msg) == off+optSize && msg[off] == 0 && Type(binary.BigEndian.Uint16(msg[off+1:])) == typeOPT &&
		msg[off+9] == 0 && msg[off+10] == 0 {
		q.parseOPT(msg[off+1:]) // So are most queries.
		return true
	}
	for i := range total {
		start := off
		next, ok := off+1, off < len(msg)
		if ok && msg[off] != 0 {
			next, ok = SkipName(msg, off)
		}
		if !ok || next+10 > len(msg) {
			return false
		}
		data := next + 10
		off = data + int(binary.BigEndian.Uint16(msg[next+8:]))
		if off > len(msg) {
			return false
		}
		switch Type(binary.BigEndian.Uint16(msg[next:])) {
		case TypeTSIG:
			if i < before || i != total-1 {
				return false
			}
			q.signed = true
		case typeOPT:
			if q.edns || i < before || msg[start] != 0 {
				return false
			}
			q.parseOPT(msg[next:])
			if !q.parseOptions(msg[data:off]) {
				return false
			}
		}
	}
	return off == len(msg)
}

// parseOPT reads the fixed part of an OPT record (RFC 6891 section 6.1.2) from its type on.
func (q *Query) parseOPT(record []byte) {
	_ = record[9]
	q.edns = true
	q.size = binary.BigEndian.Uint16(record[2:])
	q.version = record[5]
	q.do = record[6]&(ednsDO>>8) != 0
	q.compact = record[6]&(ednsCO>>8) != 0
}

// parseOptions reads the data of OPT.
func (q *Query) parseOptions(data []byte) bool {
	for len(data) > 0 {
		if len(data) < 4 {
			return false
		}
		code, size := binary.BigEndian.Uint16(data), int(binary.BigEndian.Uint16(data[2:]))
		if data = data[4:]; size > len(data) {
			return false
		}
		switch code {
		case OptionNSID:
			q.nsid = true
		case OptionCookie:
			// RFC 7873 section 5.2: 8 octets of the client and 0 or 8 to 32 of the server; the first option counts.
			if size != 8 && (size < 16 || size > 40) {
				return false
			}
			if q.cookie == nil {
				q.cookie = data[:size:size]
			}
		}
		data = data[size:]
	}
	return true
}

// Code returns the code that a query with the verdict Fail is answered with.
func (q *Query) Code() Rcode { return q.code }

// Name returns the question's name in wire form and lower case. It is valid until the next Parse.
func (q *Query) Name() []byte { return q.name[:q.nameLen] }

// Type returns the question's type.
func (q *Query) Type() Type { return q.typ }

// Opcode returns the message's opcode.
func (q *Query) Opcode() int { return int(q.msg[2]&maskOpcode) >> 3 }

// Len returns the number of octets of the message.
func (q *Query) Len() int { return len(q.msg) }

// EDNS reports whether the query has an OPT record.
func (q *Query) EDNS() bool { return q.edns }

// DO reports whether signatures are asked for (RFC 3225).
func (q *Query) DO() bool { return q.do }

// Compact reports whether the sender understands compact denial (RFC 9824 section 5.1).
func (q *Query) Compact() bool { return q.compact }

// Size returns how many octets the sender takes over UDP: at least 512.
func (q *Query) Size() int { return max(int(q.size), MinUDP) }

// Cookie returns the value of the cookie option (RFC 7873): 8 octets of the client, then 0 or 8 to 32 of the server. It is
// nil where there is none.
func (q *Query) Cookie() []byte { return q.cookie }

// NSID reports whether the query asks for the server's id (RFC 5001).
func (q *Query) NSID() bool { return q.nsid }

// Signed reports whether the query ends in a TSIG record (RFC 8945), which is not checked.
func (q *Query) Signed() bool { return q.signed }
