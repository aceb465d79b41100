package zone

import "encoding/binary"

// Type is a record type (IANA DNS parameters).
type Type uint16

// The types that the package knows.
const (
	TypeA     Type = 1
	TypeNS    Type = 2
	TypeSOA   Type = 6
	TypePTR   Type = 12
	TypeHINFO Type = 13
	TypeAAAA  Type = 28
	typeOPT   Type = 41
	typeIXFR  Type = 251
	typeAXFR  Type = 252
	typeANY   Type = 255
)

// Rcode is a response code (RFC 1035 section 4.1.1, RFC 6891 section 9).
type Rcode uint16

// The codes that the package and its users answer with.
const (
	Success        Rcode = 0
	FormatError    Rcode = 1
	ServerFailure  Rcode = 2
	NameError      Rcode = 3
	NotImplemented Rcode = 4
	Refused        Rcode = 5
	BadVersion     Rcode = 16
)

const (
	classIN      = 1
	headerSize   = 12
	optSize      = 11
	flagQR       = 0x80
	flagAA       = 0x04
	flagTC       = 0x02
	flagRD       = 0x01
	maskOpcode   = 0x78
	ednsDO       = 0x8000
	minUDP       = 512
	questionTail = 4
)

// MaxUDP is the largest answer over UDP, in octets: it fits any path without fragments (DNS flag day 2020).
const MaxUDP = 1232

// MaxMessage is the largest DNS message, in octets.
const MaxMessage = 65535

// Query is a parsed query. It refers to the message that it was parsed from.
type Query struct {
	msg []byte
	// end is the offset behind the question; the name is msg[headerSize:end-questionTail].
	end   int
	typ   Type
	class uint16
	edns  bool
	// do is the OPT flag of RFC 3225, which is copied; size is the sender's UDP limit.
	do      bool
	version uint8
	size    int
}

// Verdict says what became of a message.
type Verdict uint8

const (
	// Drop: not a query; it gets no answer.
	Drop Verdict = iota
	// Answered: the answer is complete.
	Answered
	// Foreign: a well-formed question about a name that the set does not have. There is no answer yet.
	Foreign
)

// parse reads a query. It returns Drop for what must not be answered, Answered with a code for what is answered with
// that code alone, and Foreign for a question that is to be looked up.
func parse(msg []byte, q *Query) (Verdict, Rcode) {
	q.msg = msg
	if len(msg) < headerSize || len(msg) > MaxMessage || msg[2]&flagQR != 0 {
		return Drop, 0
	}
	if msg[2]&maskOpcode != 0 {
		return Answered, NotImplemented
	}
	// RFC 9619: a query has exactly one question.
	if binary.BigEndian.Uint16(msg[4:]) != 1 {
		return Answered, FormatError
	}
	off, ok := scanName(msg, headerSize)
	if !ok || off+questionTail > len(msg) {
		return Answered, FormatError
	}
	q.typ = Type(binary.BigEndian.Uint16(msg[off:]))
	q.class = binary.BigEndian.Uint16(msg[off+2:])
	off += questionTail
	if !q.parseRecords(msg, off) {
		q.edns = false
		return Answered, FormatError
	}
	q.end = off
	if q.edns && q.version != 0 {
		return Answered, BadVersion
	}
	return Foreign, 0
}

// parseRecords walks the records behind the question, of which only OPT (RFC 6891) means anything.
func (q *Query) parseRecords(msg []byte, off int) bool {
	before := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:]))
	total := before + int(binary.BigEndian.Uint16(msg[10:]))
	for i := range total {
		start := off
		next, ok := skipName(msg, off)
		if !ok || next+10 > len(msg) {
			return false
		}
		off = next + 10 + int(binary.BigEndian.Uint16(msg[next+8:]))
		if off > len(msg) {
			return false
		}
		if Type(binary.BigEndian.Uint16(msg[next:])) != typeOPT {
			continue
		}
		if q.edns || i < before || msg[start] != 0 {
			return false
		}
		q.edns = true
		q.size = int(binary.BigEndian.Uint16(msg[next+2:]))
		q.version = msg[next+5]
		q.do = binary.BigEndian.Uint16(msg[next+6:])&ednsDO != 0
	}
	return off == len(msg)
}

func (q *Query) name() []byte { return q.msg[headerSize : q.end-questionTail] }

// begin appends the header and, where it was read, the question.
func (q *Query) begin(dst []byte, code Rcode, authoritative bool) []byte {
	flags := flagQR | q.msg[2]&(maskOpcode|flagRD)
	if authoritative {
		flags |= flagAA
	}
	dst = append(dst, q.msg[0], q.msg[1], flags, byte(code&0xf), 0, 0, 0, 0, 0, 0, 0, 0)
	if q.end > 0 {
		dst[len(dst)-headerSize+5] = 1
		dst = append(dst, q.msg[headerSize:q.end]...)
	}
	return dst
}

// finish appends the OPT record, which only answers one, to the message that starts at start.
func (q *Query) finish(dst []byte, start int, code Rcode) []byte {
	if !q.edns {
		return dst
	}
	count(dst[start:], 10, 1)
	var do byte
	if q.do {
		do = ednsDO >> 8
	}
	return append(dst, 0, 0, byte(typeOPT), MaxUDP>>8, MaxUDP&0xff, byte(code>>4), 0, do, 0, 0, 0)
}

// limit returns how large the answer may be, in octets.
func (q *Query) limit(tcp bool) int {
	switch {
	case tcp:
		return MaxMessage
	case q.edns:
		return min(max(q.size, minUDP), MaxUDP)
	}
	return minUDP
}

// count adds n to the header's counter at offset off.
func count(msg []byte, off, n int) {
	binary.BigEndian.PutUint16(msg[off:], binary.BigEndian.Uint16(msg[off:])+uint16(n))
}

// Fail appends an answer to msg that holds nothing but the code; it appends nothing where msg is not a query.
// Malformed queries and unknown opcodes get their own code instead.
func Fail(dst, msg []byte, code Rcode) []byte {
	var q Query
	switch verdict, own := parse(msg, &q); verdict {
	case Drop:
		return dst
	case Answered:
		code = own
	}
	return q.fail(dst, code)
}

func (q *Query) fail(dst []byte, code Rcode) []byte {
	start := len(dst)
	return q.finish(q.begin(dst, code, false), start, code)
}

// CapTTL lowers the TTLs of all records of a message to at most the given number of seconds. It reports whether the
// message is well-formed; one that is not is left as it is from the fault on.
func CapTTL(msg []byte, seconds uint32) bool {
	if len(msg) < headerSize {
		return false
	}
	off := headerSize
	for range binary.BigEndian.Uint16(msg[4:]) {
		next, ok := skipName(msg, off)
		if off = next + questionTail; !ok || off > len(msg) {
			return false
		}
	}
	records := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:])) + int(binary.BigEndian.Uint16(msg[10:]))
	for range records {
		next, ok := skipName(msg, off)
		if !ok || next+10 > len(msg) {
			return false
		}
		// The field of OPT is no TTL.
		if ttl := msg[next+4 : next+8]; Type(binary.BigEndian.Uint16(msg[next:])) != typeOPT && binary.BigEndian.Uint32(ttl) > seconds {
			binary.BigEndian.PutUint32(ttl, seconds)
		}
		if off = next + 10 + int(binary.BigEndian.Uint16(msg[next+8:])); off > len(msg) {
			return false
		}
	}
	return true
}

// Key returns what a query asks, with the name in lower case and a last octet that says whether it has an OPT record,
// and the length of its question section. It is empty for what is no well-formed query.
func Key(msg []byte) (key string, question int) {
	var q Query
	if verdict, _ := parse(msg, &q); verdict != Foreign {
		return "", 0
	}
	var buf [maxName]byte
	var edns byte
	if q.edns {
		edns = 1
	}
	return string(q.lowerName(&buf)) + string(msg[q.end-questionTail:q.end]) + string(edns), q.end - headerSize
}
