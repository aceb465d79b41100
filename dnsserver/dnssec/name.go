package dnssec

import (
	"bytes"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// typeNXNAME is of names that do not exist (RFC 9824 section 9).
const typeNXNAME zone.Type = 128

// Bounds of RFC 1035 section 2.3.4, in octets.
const (
	maxName  = 255
	maxLabel = 63
)

// within reports whether a wire name is the origin or below it.
func within(wire, origin []byte) bool {
	for i := 0; len(wire)-i >= len(origin); i += 1 + int(wire[i]) {
		if bytes.Equal(wire[i:], origin) {
			return true
		}
		if wire[i] == 0 {
			return false
		}
	}
	return false
}

// sortKey returns octets that order the names of zones canonically (RFC 4034 section 6.1) when compared as octets: the
// labels from the last to the first, each ended by a zero, which such names do not have.
func sortKey[T string | []byte](wire T) string {
	var starts [maxName / 2]uint8
	n := 0
	for i := 0; wire[i] != 0; i += 1 + int(wire[i]) {
		starts[n] = uint8(i)
		n++
	}
	key := make([]byte, 0, len(wire))
	for n--; n >= 0; n-- {
		i := int(starts[n])
		key = append(append(key, wire[i+1:i+1+int(wire[i])]...), 0)
	}
	return string(key)
}
