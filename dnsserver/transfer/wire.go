package transfer

import (
	"encoding/binary"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

const (
	headerSize = 12
	// questionTail is a question without its name.
	questionTail = 4
	// fixed is a record without its owner and data.
	fixed   = 10
	classIN = 1
)

// appendName appends the wire form of a name of a zone, in lower case; these have no escapes.
func appendName(dst []byte, name string) []byte {
	if name = strings.TrimSuffix(name, "."); name != "" {
		for label := range strings.SplitSeq(name, ".") {
			dst = append(dst, byte(len(label)))
			for i := range len(label) {
				c := label[i]
				if 'A' <= c && c <= 'Z' {
					c += 'a' - 'A'
				}
				dst = append(dst, c)
			}
		}
	}
	return append(dst, 0)
}

// appendRecord appends a record with its whole owner.
func appendRecord(dst []byte, r zone.Record) []byte { return appendBody(appendName(dst, r.Name), r) }

// appendBody appends what follows a record's owner.
func appendBody(dst []byte, r zone.Record) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.Type))
	dst = binary.BigEndian.AppendUint16(dst, classIN)
	dst = binary.BigEndian.AppendUint32(dst, r.TTL)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(r.Data)))
	return append(dst, r.Data...)
}

// cut splits the first record off what appendRecord made, into its owner and what follows that.
func cut(records []byte) (owner, body, rest []byte) {
	n := 0
	for records[n] != 0 {
		n += 1 + int(records[n])
	}
	n++
	end := n + fixed + int(binary.BigEndian.Uint16(records[n+8:]))
	return records[:n], records[n:end], records[end:]
}

// skipName returns the offset behind the name at off, without following a pointer.
func skipName(msg []byte, off int) (int, bool) {
	for off < len(msg) {
		n := int(msg[off])
		switch {
		case n == 0:
			return off + 1, true
		case n >= 0xc0:
			return off + 2, off+2 <= len(msg)
		case n >= 0x40:
			return 0, false
		}
		off += 1 + n
	}
	return 0, false
}

// requestSerial returns the serial of the version that the sender of an IXFR query has: that of the SOA record which is its
// authority section (RFC 1995 section 3). The message is otherwise well-formed; its question's name has the given size.
func requestSerial(msg []byte, name int) (uint32, bool) {
	if binary.BigEndian.Uint16(msg[6:]) != 0 || binary.BigEndian.Uint16(msg[8:]) != 1 {
		return 0, false
	}
	off, ok := skipName(msg, headerSize+name+questionTail)
	if !ok || off+fixed > len(msg) || zone.Type(binary.BigEndian.Uint16(msg[off:])) != zone.TypeSOA || binary.BigEndian.Uint16(msg[off+2:]) != classIN {
		return 0, false
	}
	end := off + fixed + int(binary.BigEndian.Uint16(msg[off+8:]))
	if off += fixed; end > len(msg) {
		return 0, false
	}
	for range 2 { // The primary's and the hostmaster's names.
		if off, ok = skipName(msg[:end], off); !ok {
			return 0, false
		}
	}
	if end-off != 5*4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(msg[off:]), true
}
