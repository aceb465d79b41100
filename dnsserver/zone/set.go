package zone

import (
	"fmt"
	"math"
)

// Set is the zones that one server answers for. It is immutable; nil is the empty set.
type Set struct {
	zones   []*Zone
	origins table
	// shortest and longest are the numbers of labels that origins have.
	shortest, longest int
}

// NewSet makes a set. Origins must differ; one may lie within another and then answers for its names.
func NewSet(zones []*Zone) (*Set, error) {
	s := &Set{zones: zones, shortest: math.MaxInt}
	names := make([][]byte, 0, len(zones))
	seen := make(map[string]bool, len(zones))
	for _, z := range zones {
		if seen[string(z.origin)] {
			return nil, fmt.Errorf("cannot serve zone %s twice", z.Origin())
		}
		seen[string(z.origin)] = true
		names = append(names, z.origin)
		n := labels(z.origin)
		s.shortest, s.longest = min(s.shortest, n), max(s.longest, n)
	}
	s.origins = newTable(names)
	return s, nil
}

// Zones returns the zones of the set. The caller must not change them.
func (s *Set) Zones() []*Zone {
	if s == nil {
		return nil
	}
	return s.zones
}

func labels(name []byte) (n int) {
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		n++
	}
	return n
}

// zoneOf returns the zone with the longest origin that a name in lower case lies in, or nil.
func (s *Set) zoneOf(name []byte) *Zone {
	if s == nil {
		return nil
	}
	n := labels(name)
	for i := 0; n >= s.shortest; n-- {
		if n <= s.longest {
			if at := s.origins.lookup(name[i:]); at >= 0 {
				return s.zones[at]
			}
		}
		if name[i] == 0 {
			break
		}
		i += 1 + int(name[i])
	}
	return nil
}

// Covers reports whether the question of a query lies in a zone of the set, whether or not its name exists.
// Anything that is not a well-formed query does not.
func (s *Set) Covers(msg []byte) bool {
	var q Query
	if verdict, _ := parse(msg, &q); verdict != Foreign || q.class != classIN {
		return false
	}
	var buf [maxName]byte
	return s.zoneOf(q.lowerName(&buf)) != nil
}

// lowerName copies the question's name, in lower case, into buf.
func (q *Query) lowerName(buf *[maxName]byte) []byte {
	name := q.name()
	for i, c := range name {
		buf[i] = lower(c) // Length octets are at most 63 and so are no letters.
	}
	return buf[:len(name)]
}

// Respond appends to dst the answer to msg, a message that came over TCP or UDP. It never appends more than the transport
// and the sender allow, does not allocate where dst has room, and never fails: see [Verdict].
func (s *Set) Respond(dst, msg []byte, tcp bool) ([]byte, Verdict) {
	var q Query
	switch verdict, code := parse(msg, &q); verdict {
	case Drop:
		return dst, Drop
	case Answered:
		return q.fail(dst, code), Answered
	}
	if q.class != classIN {
		return dst, Foreign
	}
	var buf [maxName]byte
	name := q.lowerName(&buf)
	z := s.zoneOf(name)
	if z == nil {
		return dst, Foreign
	}
	// Transfers are not offered.
	if q.typ == typeAXFR || q.typ == typeIXFR {
		return q.fail(dst, Refused), Answered
	}
	at := z.names.lookup(name)
	if at < 0 && z.partial {
		return dst, Foreign
	}
	if at < 0 {
		return q.negative(dst, z, NameError, q.limit(tcp)), Answered
	}
	return q.positive(dst, z, z.nodes[at], q.limit(tcp)), Answered
}

// positive appends the answer about an existing name.
func (q *Query) positive(dst []byte, z *Zone, n node, limit int) []byte {
	start := len(dst)
	if q.typ == typeANY && n.count > 0 {
		dst = q.begin(dst, Success, true)
		count(dst[start:], 6, 1)
		return q.finish(append(dst, z.hinfo...), start, Success)
	}
	set := z.find(n, q.typ)
	if set == nil {
		return q.negative(dst, z, Success, limit)
	}
	dst = q.begin(dst, Success, true)
	room := limit - (len(dst) - start)
	if q.edns {
		room -= optSize
	}
	size := int(set.end - set.off)
	if size > room {
		dst[start+2] |= flagTC
		return q.finish(dst, start, Success)
	}
	count(dst[start:], 6, int(set.count))
	answer := z.arena[set.off:set.end]
	if set.stride != 0 {
		first := int(uint16(q.msg[0])<<8|uint16(q.msg[1])) % int(set.count) * int(set.stride)
		dst = append(dst, answer[first:]...)
		answer = answer[:first]
	}
	dst = append(dst, answer...)
	// Additional records are a courtesy: they are left out where there is no room.
	if set.extra > 0 && size+int(set.extraEnd-set.end) <= room {
		count(dst[start:], 10, int(set.extra))
		dst = append(dst, z.arena[set.end:set.extraEnd]...)
	}
	return q.finish(dst, start, Success)
}

// negative appends NXDOMAIN or NODATA with the SOA, whose owner is a pointer to the end of the question's name.
func (q *Query) negative(dst []byte, z *Zone, code Rcode, limit int) []byte {
	start := len(dst)
	dst = q.begin(dst, code, true)
	// Only an origin near the longest makes it too large; without the SOA it could not be remembered.
	if len(dst)-start+len(questionName)+len(z.soa)+optSize > limit {
		dst[start+2] |= flagTC
		return q.finish(dst, start, code)
	}
	owner := q.end - questionTail - len(z.origin)
	count(dst[start:], 8, 1)
	dst = append(dst, 0xc0|byte(owner>>8), byte(owner))
	return q.finish(append(dst, z.soa...), start, code)
}
