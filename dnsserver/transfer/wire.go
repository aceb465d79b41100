package transfer

import (
	"encoding/binary"

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

// appendName appends the wire form of a name that a zone has, and which therefore has one.
func appendName(dst []byte, name string) []byte {
	named, err := zone.AppendName(dst, name)
	if err != nil {
		return append(dst, 0)
	}
	return named
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

// requestSerial returns the serial of the version that the sender of an IXFR query has: that of the SOA record which is its
// authority section (RFC 1995 section 3). The message is otherwise well-formed; its question's name has the given size.
func requestSerial(msg []byte, name int) (uint32, bool) {
	if binary.BigEndian.Uint16(msg[6:]) != 0 || binary.BigEndian.Uint16(msg[8:]) != 1 {
		return 0, false
	}
	off, ok := zone.SkipName(msg, headerSize+name+questionTail)
	if !ok || off+fixed > len(msg) || zone.Type(binary.BigEndian.Uint16(msg[off:])) != zone.TypeSOA || binary.BigEndian.Uint16(msg[off+2:]) != classIN {
		return 0, false
	}
	end := off + fixed + int(binary.BigEndian.Uint16(msg[off+8:]))
	if off += fixed; end > len(msg) {
		return 0, false
	}
	for range 2 { // The primary's and the hostmaster's names.
		if off, ok = zone.SkipName(msg[:end], off); !ok {
			return 0, false
		}
	}
	if end-off != 5*4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(msg[off:]), true
}
