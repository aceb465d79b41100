package dnssec

import (
	"bytes"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Types that only signed zones have (RFC 4034, RFC 9824 section 9).
const (
	typeDS     zone.Type = 43
	typeRRSIG  zone.Type = 46
	typeNSEC   zone.Type = 47
	typeDNSKEY zone.Type = 48
	typeNXNAME zone.Type = 128
	typeANY    zone.Type = 255
)

// Bounds of RFC 1035 section 2.3.4, in octets.
const (
	maxName  = 255
	maxLabel = 63
)

// textOf returns the presentation form, with final dot, of a wire name made by zone.AppendName.
func textOf[T string | []byte](wire T) string {
	if len(wire) <= 1 {
		return "."
	}
	text := make([]byte, 0, len(wire))
	for i := 0; wire[i] != 0; i += 1 + int(wire[i]) {
		text = append(append(text, wire[i+1:i+1+int(wire[i])]...), '.')
	}
	return string(text)
}

// labels returns the number of labels of a wire name, the root not counted.
func labels(wire []byte) (n int) {
	for i := 0; wire[i] != 0; i += 1 + int(wire[i]) {
		n++
	}
	return n
}

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
