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

const optionHeader = 4

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
