package dnssec

import (
	"slices"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// chain is base's ring of names with what comes and goes.
type chain struct {
	base *zone.Zone
	// gone names are no longer in the ring; each has, once it is known, the base name after it that remains.
	gone map[string]string
	// added are the sort keys of the new names, in order; wires are their names.
	added []string
	wires map[string]string
}

// mend links the names that are made anew, and the names before those that come or go: no other link of the chain changes.
func (r *run) mend() error {
	c := chain{base: r.base, gone: map[string]string{}, wires: map[string]string{}}
	var moved []*name
	for _, n := range r.sorted() {
		old := false
		for range r.base.Records(zone.TextName(n.wire)) {
			old = true
			break
		}
		switch {
		case old && len(n.plain) == 0:
			c.gone[n.wire] = ""
			moved = append(moved, n)
		case !old && len(n.plain) > 0:
			c.added = append(c.added, n.key)
			c.wires[n.key] = n.wire
			moved = append(moved, n)
		}
	}
	for _, n := range moved {
		before, err := c.before(n)
		if err != nil {
			return err
		}
		if err := r.load(before); err != nil {
			return err
		}
	}
	for _, n := range slices.Backward(r.sorted()) {
		after, err := c.after(n, string(r.origin))
		if err != nil {
			return err
		}
		n.next = after
	}
	return nil
}

// before returns the name that stands before another one that comes or goes: in the new ring, or a name that goes too and
// so has somebody before it linked anew. The origin, which is never gone, comes first.
func (c *chain) before(n *name) (string, error) {
	text, _ := c.base.Neighbours(zone.TextName(n.wire))
	before, err := zone.AppendName(nil, text)
	if err != nil {
		return "", err
	}
	wire := string(before)
	if i, _ := slices.BinarySearch(c.added, n.key); i > 0 && c.added[i-1] > sortKey(wire) {
		wire = c.wires[c.added[i-1]]
	}
	return wire, nil
}

// after returns the name that stands after another one in the new ring. Names are asked about in reverse order.
func (c *chain) after(n *name, origin string) (string, error) {
	_, text := c.base.Neighbours(zone.TextName(n.wire))
	after, err := zone.AppendName(nil, text)
	if err != nil {
		return "", err
	}
	wire := string(after)
	if beyond, gone := c.gone[wire]; gone {
		wire = beyond
	}
	if _, gone := c.gone[n.wire]; gone {
		c.gone[n.wire] = wire
	}
	i, found := slices.BinarySearch(c.added, n.key)
	if found {
		i++
	}
	if i < len(c.added) && (wire == origin || strings.Compare(c.added[i], sortKey(wire)) < 0) {
		wire = c.wires[c.added[i]]
	}
	return wire, nil
}

// bitmap returns the type bit maps of an NSEC record (RFC 4034 section 4.1.2). The types are in order.
func bitmap(dst []byte, types []zone.Type) []byte {
	for i := 0; i < len(types); {
		window := byte(types[i] >> 8)
		var bits [32]byte
		size := 0
		for ; i < len(types) && byte(types[i]>>8) == window; i++ {
			low := int(types[i] & 0xff)
			bits[low/8] |= 0x80 >> (low % 8)
			size = low/8 + 1
		}
		dst = append(append(dst, window, byte(size)), bits[:size]...)
	}
	return dst
}

// nsec returns the NSEC set of a name with sets of these types and its own two.
func nsec(next string, sets []rrset, ttl uint32) rrset {
	types := make([]zone.Type, 0, len(sets)+2)
	for _, s := range sets {
		types = append(types, s.typ)
	}
	types = append(types, zone.TypeRRSIG, zone.TypeNSEC)
	slices.Sort(types)
	return rrset{typ: zone.TypeNSEC, ttl: ttl, data: [][]byte{bitmap([]byte(next), types)}}
}
