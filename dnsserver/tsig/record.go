package tsig

import (
	"encoding/binary"
	"errors"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Errors of Verify and Accept.
var (
	// ErrUnsigned: the message has no TSIG record.
	ErrUnsigned = errors.New("the message is not signed")
	// ErrFormat: the message or its TSIG record is malformed, or the record is not the last one. The answer is FORMERR.
	ErrFormat = errors.New("the message is malformed")
)

const (
	headerSize = 12
	maxName    = 255
	typeTSIG   = 250
	classANY   = 255
	// fixed is what a record has between its name and its data.
	fixed = 10
)

// record is the TSIG record of a message (RFC 8945 section 4.2). Its slices lie in the message.
type record struct {
	// start is the record's offset in the message.
	start int
	// name and algorithm are in wire form and lower case.
	name, algorithm string
	time            uint64
	fudge           uint16
	mac             []byte
	id              uint16
	code            Code
	other           []byte
}

// parse finds the TSIG record of a message.
func parse(msg []byte) (r record, err error) {
	if len(msg) < headerSize {
		return r, ErrFormat
	}
	off, ok := headerSize, true
	for range binary.BigEndian.Uint16(msg[4:]) {
		if off, ok = zone.SkipName(msg, off); !ok || off+4 > len(msg) {
			return r, ErrFormat
		}
		off += 4
	}
	additional := int(binary.BigEndian.Uint16(msg[10:]))
	records := int(binary.BigEndian.Uint16(msg[6:])) + int(binary.BigEndian.Uint16(msg[8:])) + additional
	for left := records; left > 0; left-- {
		start := off
		if off, ok = zone.SkipName(msg, off); !ok || off+fixed > len(msg) {
			return r, ErrFormat
		}
		head := msg[off : off+fixed]
		data := off + fixed
		if off = data + int(binary.BigEndian.Uint16(head[8:])); off > len(msg) {
			return r, ErrFormat
		}
		if binary.BigEndian.Uint16(head) != typeTSIG {
			continue
		}
		// RFC 8945 section 5.1: the last of the additional section, or the message is malformed.
		if left > 1 || additional == 0 || off != len(msg) || binary.BigEndian.Uint16(head[2:]) != classANY || binary.BigEndian.Uint32(head[4:]) != 0 {
			return r, ErrFormat
		}
		r.start = start
		if r.name, ok = readName(msg, start); !ok || !r.parseData(msg[data:off]) {
			return r, ErrFormat
		}
		return r, nil
	}
	return r, ErrUnsigned
}

func (r *record) parseData(data []byte) bool {
	end, ok := zone.SkipName(data, 0)
	if !ok || end+fixed > len(data) {
		return false
	}
	if r.algorithm, ok = readName(data[:end], 0); !ok {
		return false
	}
	data = data[end:]
	r.time = uint64(binary.BigEndian.Uint16(data))<<32 | uint64(binary.BigEndian.Uint32(data[2:]))
	r.fudge = binary.BigEndian.Uint16(data[6:])
	size := int(binary.BigEndian.Uint16(data[8:]))
	if data = data[10:]; len(data) < size+6 {
		return false
	}
	r.mac, data = data[:size], data[size:]
	r.id = binary.BigEndian.Uint16(data)
	r.code = Code(binary.BigEndian.Uint16(data[2:]))
	r.other = data[6:]
	return len(r.other) == int(binary.BigEndian.Uint16(data[4:]))
}

// append appends the record to a message and counts it.
func (r *record) append(msg []byte) []byte {
	binary.BigEndian.PutUint16(msg[10:], binary.BigEndian.Uint16(msg[10:])+1)
	msg = append(msg, r.name...)
	msg = append(msg, 0, typeTSIG, 0, classANY, 0, 0, 0, 0)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(r.algorithm)+16+len(r.mac)+len(r.other)))
	msg = append(msg, r.algorithm...)
	msg = appendTime(msg, r.time)
	msg = binary.BigEndian.AppendUint16(msg, r.fudge)
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(r.mac)))
	msg = append(msg, r.mac...)
	msg = binary.BigEndian.AppendUint16(msg, r.id)
	msg = binary.BigEndian.AppendUint16(msg, uint16(r.code))
	msg = binary.BigEndian.AppendUint16(msg, uint16(len(r.other)))
	return append(msg, r.other...)
}

// appendTime appends 48 bits of seconds.
func appendTime(dst []byte, seconds uint64) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(seconds>>32))
	return binary.BigEndian.AppendUint32(dst, uint32(seconds))
}

// readName returns the name at off in lower case. Pointers must lead backwards, so that there is no loop.
func readName(msg []byte, off int) (string, bool) {
	var name []byte
	for limit := off; off < len(msg); {
		n := int(msg[off])
		switch {
		case n == 0:
			return string(append(name, 0)), len(name)+1 <= maxName
		case n >= 0xc0:
			if off+2 > len(msg) {
				return "", false
			}
			if off = int(binary.BigEndian.Uint16(msg[off:]) & 0x3fff); off >= limit {
				return "", false
			}
			limit = off
			continue
		case n >= 0x40 || off+1+n > len(msg) || len(name)+1+n > maxName:
			return "", false
		}
		for _, c := range msg[off : off+1+n] {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			name = append(name, c)
		}
		off += 1 + n
	}
	return "", false
}
