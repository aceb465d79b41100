package zone

import (
	"net/netip"
	"strconv"
	"strings"
)

// ReverseName returns the name of an address' PTR record, with final dot (RFC 1035 section 3.5, RFC 3596 section 2.5).
func ReverseName(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	return reverse(addr, addr.BitLen())
}

// reverse returns the reverse name of the first bits of an address; bits is a multiple of 8 for IPv4, of 4 for IPv6.
func reverse(addr netip.Addr, bits int) string {
	var b strings.Builder
	octets := addr.AsSlice()
	if addr.Is4() {
		for i := bits/8 - 1; i >= 0; i-- {
			b.WriteString(strconv.Itoa(int(octets[i])))
			b.WriteByte('.')
		}
		return b.String() + "in-addr.arpa."
	}
	const digits = "0123456789abcdef"
	for i := bits/4 - 1; i >= 0; i-- {
		nibble := octets[i/2]
		if i%2 == 0 {
			nibble >>= 4
		}
		b.WriteByte(digits[nibble&0xf])
		b.WriteByte('.')
	}
	return b.String() + "ip6.arpa."
}

// ReverseZones returns the origins, with final dot, of the reverse zones that together hold a prefix: on octet boundaries
// for IPv4 and nibble boundaries for IPv6. A prefix between two boundaries takes several zones at the longer one; a
// prefix longer than 24 bits of IPv4 (124 of IPv6) shares the zone of that length with its neighbours.
func ReverseZones(prefix netip.Prefix) []string {
	prefix = prefix.Masked()
	step, longest := 8, 24
	if prefix.Addr().Is6() {
		step, longest = 4, 124
	}
	bits := min((prefix.Bits()+step-1)/step*step, longest)
	if bits == 0 {
		bits = step
	}
	var zones []string
	for addr := prefix.Addr(); ; {
		zones = append(zones, reverse(addr, bits))
		next, ok := advance(addr, bits)
		if !ok || !prefix.Contains(next) {
			return zones
		}
		addr = next
	}
}

// advance adds 1 at the last of the first bits of an address; ok is false when it wraps.
func advance(addr netip.Addr, bits int) (next netip.Addr, ok bool) {
	octets := addr.AsSlice()
	carry := 1 << ((8 - bits%8) % 8)
	for i := (bits - 1) / 8; i >= 0 && carry != 0; i-- {
		sum := int(octets[i]) + carry
		octets[i], carry = byte(sum), sum>>8
	}
	next, _ = netip.AddrFromSlice(octets)
	return next, carry == 0
}
