package dnsserver

import (
	"encoding/binary"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// optionKeepalive is the idle time of a TCP connection (RFC 7828).
const optionKeepalive = 11

// Extended errors (RFC 8914 section 4).
const (
	errorNotReady         = 14
	errorProhibited       = 18
	errorNotAuthoritative = 20
)

const (
	optSize      = 11
	optionHeader = 4
)

// appendOption appends the head of an EDNS option (RFC 6891 section 6.1.2), which size octets follow.
func appendOption(dst []byte, code uint16, size int) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(dst, code), uint16(size))
}

// appendError appends an extended error without text.
func appendError(dst []byte, code uint16) []byte {
	return binary.BigEndian.AppendUint16(appendOption(dst, zone.OptionError, 2), code)
}

// appendKeepalive appends how long we keep an idle connection, in tenths of a second.
func appendKeepalive(dst []byte, idle time.Duration) []byte {
	return binary.BigEndian.AppendUint16(appendOption(dst, optionKeepalive, 2), uint16(min(idle/(100*time.Millisecond), 1<<16-1)))
}

// withOptions adds options to a message that ends in an OPT record without any; to others it adds none.
func withOptions(msg, options []byte) []byte {
	if len(msg) < optSize || len(options) == 0 {
		return msg
	}
	opt := msg[len(msg)-optSize:]
	if opt[0] != 0 || opt[1] != 0 || opt[2] != 41 || opt[9] != 0 || opt[10] != 0 {
		return msg
	}
	msg = append(msg[:len(msg):len(msg)], options...)
	binary.BigEndian.PutUint16(msg[len(msg)-len(options)-2:], uint16(len(options)))
	return msg
}
