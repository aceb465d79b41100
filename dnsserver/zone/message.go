package zone

import "encoding/binary"

// Type is a record type (IANA DNS parameters).
type Type uint16

// The types that the package and its users know.
const (
	TypeA       Type = 1
	TypeNS      Type = 2
	TypeCNAME   Type = 5
	TypeSOA     Type = 6
	TypePTR     Type = 12
	TypeHINFO   Type = 13
	TypeTXT     Type = 16
	TypeAAAA    Type = 28
	TypeSRV     Type = 33
	TypeDNAME   Type = 39
	TypeDS      Type = 43
	TypeSSHFP   Type = 44
	TypeRRSIG   Type = 46
	TypeNSEC    Type = 47
	TypeDNSKEY  Type = 48
	TypeCDS     Type = 59
	TypeCDNSKEY Type = 60
	TypeTSIG    Type = 250
	TypeIXFR    Type = 251
	TypeAXFR    Type = 252
	TypeANY     Type = 255
	TypeCAA     Type = 257
	typeOPT     Type = 41
)

// Rcode is a response code (RFC 1035 section 4.1.1, RFC 6891 section 9).
type Rcode uint16

// The codes that the package and its users answer with.
const (
	Success          Rcode = 0
	FormatError      Rcode = 1
	ServerFailure    Rcode = 2
	NameError        Rcode = 3
	NotImplemented   Rcode = 4
	Refused          Rcode = 5
	NotAuthoritative Rcode = 9
	BadVersion       Rcode = 16
	BadCookie        Rcode = 23
)

// Opcodes (RFC 1035 section 4.1.1, RFC 1996).
const (
	OpcodeQuery  = 0
	OpcodeNotify = 4
)

// EDNS options (RFC 5001, RFC 7873, RFC 8914).
const (
	OptionNSID   = 3
	OptionCookie = 10
	OptionError  = 15
)

const (
	classIN      = 1
	headerSize   = 12
	optSize      = 11
	flagQR       = 0x80
	flagAA       = 0x04
	flagTC       = 0x02
	flagRD       = 0x01
	flagCD       = 0x10
	maskOpcode   = 0x78
	ednsDO       = 0x8000
	ednsCO       = 0x4000
	questionTail = 4
)

// MinUDP is what every client takes over UDP, in octets (RFC 1035 section 4.2.1).
const MinUDP = 512

// MaxUDP is the largest answer over UDP, in octets: it fits any path without fragments (DNS flag day 2020).
const MaxUDP = 1232

// MaxMessage is the largest DNS message, in octets.
const MaxMessage = 65535

// Reply says what an answer may be made of.
type Reply struct {
	// Max is the most octets of the answer. What does not fit is left out, from the end: optional records, then records
	// (with TC), options, OPT, the question.
	Max int
	// Options are EDNS options in wire form for the answer's OPT record, which only answers one.
	Options []byte
}

// count adds n to the header's counter at offset off.
func count(msg []byte, off, n int) {
	binary.BigEndian.PutUint16(msg[off:], binary.BigEndian.Uint16(msg[off:])+uint16(n))
}

// begin appends the header and, where one was read and there is room, the question.
func (q *Query) begin(dst []byte, code Rcode, flags byte, limit int) []byte {
	flags |= flagQR | q.msg[2]&(maskOpcode|flagRD)
	dst = append(dst, q.msg[0], q.msg[1], flags, byte(code&0xf), 0, 0, 0, 0, 0, 0, 0, 0)
	if q.end > 0 && int(q.end) <= limit {
		dst[len(dst)-headerSize+5] = 1
		dst = append(dst, q.msg[headerSize:q.end]...)
	}
	return dst
}

// finish appends the OPT record, where there was one and there is room, to the message that starts at start.
func (q *Query) finish(dst []byte, start int, code Rcode, r *Reply) []byte {
	room := r.Max - (len(dst) - start)
	if !q.edns || int(q.end) > r.Max || room < optSize {
		return dst
	}
	options := r.Options
	if room < optSize+len(options) {
		options = nil
	}
	dst[start+11]++
	var do byte
	if q.do {
		do = ednsDO >> 8
	}
	dst = append(dst, 0, 0, byte(typeOPT), MaxUDP>>8, MaxUDP&0xff, byte(code>>4), 0, do, 0, byte(len(options)>>8), byte(len(options)))
	return append(dst, options...)
}

// WithOptions adds EDNS options to a message that ends in an OPT record without any; to others it adds none.
func WithOptions(msg, options []byte) []byte {
	if len(msg) < optSize || len(options) == 0 {
		return msg
	}
	opt := msg[len(msg)-optSize:]
	if opt[0] != 0 || opt[1] != 0 || opt[2] != byte(typeOPT) || opt[9] != 0 || opt[10] != 0 {
		return msg
	}
	msg = append(msg[:len(msg):len(msg)], options...)
	binary.BigEndian.PutUint16(msg[len(msg)-len(options)-2:], uint16(len(options)))
	return msg
}

// Refuse appends an answer that holds nothing but the code. For a message that was to be dropped it appends nothing.
func (q *Query) Refuse(dst []byte, code Rcode, r *Reply) []byte {
	if len(q.msg) < headerSize {
		return dst
	}
	q.place = place{} // Nothing is answered from there.
	start := len(dst)
	return q.finish(q.begin(dst, code, 0, r.Max), start, code, r)
}

// Failure appends an answer to msg that holds nothing but the code; it appends nothing where msg is not a query.
// Malformed queries and unknown opcodes get their own code instead.
func Failure(dst, msg []byte, code Rcode) []byte {
	var q Query
	switch Parse(msg, &q) {
	case Drop:
		return dst
	case Fail:
		code = q.code
	}
	return q.Refuse(dst, code, &Reply{Max: MaxMessage})
}

// CapTTL lowers the TTLs of all records of a message to at most the given number of seconds. It reports whether the
// message is well-formed; one that is not is left as it is from the fault on.
func CapTTL(msg []byte, seconds uint32) bool {
	if len(msg) < headerSize {
		return false
	}
	off := headerSize
	for range binary.BigEndian.Uint16(msg[4:]) {
		next, ok := SkipName(msg, off)
		if off = next + questionTail; !ok || off > len(msg) {
			return false
		}
	}
	records := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:])) + int(binary.BigEndian.Uint16(msg[10:]))
	for range records {
		next, ok := SkipName(msg, off)
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

// Key returns what a query asks, with the name in lower case and a last octet of what else the answer depends on: whether
// there is an OPT record, its flags DO and CO, and CD (RFC 4035 section 3.2.2). It also returns the length of the question
// section. The key is empty for what is no well-formed question.
func Key(msg []byte) (key string, question int) {
	var q Query
	if Parse(msg, &q) != Ask {
		return "", 0
	}
	last := msg[3] & flagCD
	for i, is := range [...]bool{q.edns, q.do, q.compact} {
		if is {
			last |= 1 << i
		}
	}
	return string(append(append(q.Name(), msg[q.end-questionTail:q.end]...), last)), int(q.end) - headerSize
}
