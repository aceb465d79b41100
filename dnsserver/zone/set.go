package zone

import (
	"bytes"
	"fmt"
	"hash/maphash"
)

// Set is the zones that one server answers for. It is immutable; nil is the empty set.
type Set struct {
	zones   []*Zone
	origins table
	// sizes has a bit for each number of octets that an origin has: few names have one behind more than one of their labels.
	sizes [maxName/64 + 1]uint64
}

// NewSet makes a set. Origins must differ; one may lie within another and then answers for its names.
func NewSet(zones []*Zone) (*Set, error) {
	s := &Set{zones: zones}
	names := make([][]byte, 0, len(zones))
	seen := make(map[string]bool, len(zones))
	for _, z := range zones {
		if seen[string(z.origin)] {
			return nil, fmt.Errorf("cannot serve zone %s twice", z.Origin())
		}
		seen[string(z.origin)] = true
		names = append(names, z.origin)
		s.sizes[len(z.origin)/64] |= 1 << (len(z.origin) % 64)
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

// Zone returns the zone that answers for the question of a query: the one with the longest origin. Nil where there is none.
func (s *Set) Zone(q *Query) *Zone {
	if q.class != classIN {
		return nil
	}
	z, _ := s.zoneOf(q.Name())
	return z
}

// Covers reports whether the question of a query lies in a zone of the set, whether or not its name exists.
// Anything that is not a well-formed question does not.
func (s *Set) Covers(msg []byte) bool {
	var q Query
	return Parse(msg, &q) == Ask && s.Zone(&q) != nil
}

// zoneOf returns the zone with the longest origin that a name in lower case lies in, or nil, and how many octets of the name
// stand before the origin.
func (s *Set) zoneOf(name []byte) (*Zone, int) {
	if s == nil {
		return nil, 0
	}
	for i := 0; i < len(name); i += 1 + int(name[i]) {
		if size := len(name) - i; s.sizes[size/64]>>(size%64)&1 != 0 {
			if at := s.origins.lookup(name[i:]); at >= 0 {
				return s.zones[at], i
			}
		}
	}
	return nil, 0
}

// table finds wire names in lower case by hash: open addressing with linear probing over flat arrays.
type table struct {
	seed maphash.Seed
	// index holds entry numbers plus one; its length is a power of two, at least twice the number of entries.
	index []uint32
	// ends are the ends of the entries' names in arena.
	ends  []uint32
	arena []byte
}

func newTable(names [][]byte) table {
	size := 4
	for size < 2*len(names) {
		size *= 2
	}
	t := table{seed: maphash.MakeSeed(), index: make([]uint32, size)}
	for i, name := range names {
		t.arena = append(t.arena, name...)
		t.ends = append(t.ends, uint32(len(t.arena)))
		at := t.hash(name)
		for t.index[at] != 0 {
			at = (at + 1) & (len(t.index) - 1)
		}
		t.index[at] = uint32(i + 1)
	}
	return t
}

func (t *table) hash(name []byte) int {
	return int(maphash.Bytes(t.seed, name) & uint64(len(t.index)-1))
}

// lookup returns the entry's number, or -1. A zero table has no entries.
func (t *table) lookup(name []byte) int {
	if len(t.index) == 0 {
		return -1
	}
	for at := t.hash(name); t.index[at] != 0; at = (at + 1) & (len(t.index) - 1) {
		i := t.index[at] - 1
		var start uint32
		if i > 0 {
			start = t.ends[i-1]
		}
		if bytes.Equal(t.arena[start:t.ends[i]], name) {
			return int(i)
		}
	}
	return -1
}
