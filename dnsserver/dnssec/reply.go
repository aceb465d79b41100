package dnssec

import (
	"encoding/binary"
	"math"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Parts of messages (RFC 1035 section 4.1.1, RFC 6891 section 6.1.3, RFC 9824 section 5.1, RFC 8914).
const (
	headerSize   = 12
	questionTail = 4
	fixedSize    = 10
	optSize      = 11
	flagQR       = 0x80
	flagAA       = 0x04
	flagTC       = 0x02
	flagRD       = 0x01
	flagDO       = 0x80
	flagCO       = 0x40
	typeOPT      = 41
	classIN      = 1

	optionError      = 15
	errorInvalidType = 30
)

// Sections, as the offsets of their counters.
const (
	sectionAnswer    = 6
	sectionAuthority = 8
)

// reply is an answer in the making.
type reply struct {
	q     *zone.Query
	out   []byte
	limit int
	// full says that something did not fit.
	full bool
}

func newReply(q *zone.Query, query []byte, tcp bool) *reply {
	limit := math.MaxUint16
	if !tcp {
		limit = min(q.Size(), zone.MaxUDP)
	}
	r := &reply{q: q, limit: limit - optSize, out: make([]byte, 0, 1024)}
	r.out = append(r.out, query[0], query[1], flagQR|flagAA|query[2]&flagRD, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	r.out = append(r.out, query[headerSize:headerSize+len(q.Name())+questionTail]...)
	return r
}

// add appends a set and its signatures to a section. The owner is given as the offset of its name in the message; the TTL
// is that of the records. It returns the offset of the first record's data.
func (r *reply) add(section, owner int, set rrset, ttl uint32, signatures ...[]byte) (data int) {
	if r.full {
		return 0
	}
	start := len(r.out)
	for _, d := range set.data {
		r.record(owner, set.typ, ttl, d)
	}
	for _, s := range signatures {
		r.record(owner, zone.TypeRRSIG, ttl, s)
	}
	if len(r.out) > r.limit {
		r.full = true
		return 0
	}
	counter := r.out[section:]
	binary.BigEndian.PutUint16(counter, binary.BigEndian.Uint16(counter)+uint16(len(set.data)+len(signatures)))
	return start + 2 + fixedSize
}

func (r *reply) record(owner int, typ zone.Type, ttl uint32, data []byte) {
	r.out = binary.BigEndian.AppendUint16(r.out, 0xc000|uint16(owner))
	r.out = binary.BigEndian.AppendUint16(r.out, uint16(typ))
	r.out = binary.BigEndian.AppendUint16(r.out, classIN)
	r.out = binary.BigEndian.AppendUint32(r.out, ttl)
	r.out = binary.BigEndian.AppendUint16(r.out, uint16(len(data)))
	r.out = append(r.out, data...)
}

// finish returns the message, with TC and no records where they did not fit.
func (r *reply) finish(code zone.Rcode) []byte {
	if r.full {
		r.out = r.out[:headerSize+len(r.q.Name())+questionTail]
		r.out[2] |= flagTC
		clear(r.out[sectionAnswer:headerSize])
	}
	r.out[3] = byte(code & 0xf)
	r.opt(nil)
	return r.out
}

// opt appends the OPT record, with the query's flags.
func (r *reply) opt(options []byte) {
	flags := byte(flagDO)
	if r.q.Compact() {
		flags |= flagCO
	}
	r.out[11]++
	r.out = append(r.out, 0, 0, typeOPT, zone.MaxUDP>>8, zone.MaxUDP&0xff, 0, 0, flags, 0,
		byte(len(options)>>8), byte(len(options)))
	r.out = append(r.out, options...)
}

// invalidType answers a question for a type that is only for bit maps (RFC 8914 code 30).
func invalidType(q *zone.Query, query []byte) []byte {
	r := newReply(q, query, true)
	r.out[2] &^= flagAA
	r.out[3] = byte(zone.FormatError)
	r.opt([]byte{0, optionError, 0, 2, 0, errorInvalidType})
	return r.out
}
