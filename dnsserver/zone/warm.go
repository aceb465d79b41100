package zone

import (
	"hash/maphash"
	"strings"
)

// place is where a question's name was found, for the Answer that follows.
type place struct {
	set  *Set
	zone *Zone
	// size is what the name has before the zone's origin, in octets.
	size  int
	hash  uint64
	shard shard
	// read is of no use but that it was read.
	read byte
}

// Warm looks the names of queries up together, each of which has the verdict of the same index. [Set.Answer] gives the
// same answers without; with it, the memory of all the names is fetched at once, instead of one after the other.
func (s *Set) Warm(queries []Query, verdicts []Verdict) {
	for i := range queries {
		q := &queries[i]
		if verdicts[i] != Ask || q.class != classIN {
			continue
		}
		// The apex is at hand.
		if z, size := s.zoneOf(q.Name(), q.labels); z != nil && size > 0 {
			q.place = place{set: s, zone: z, size: size, hash: maphash.Bytes(z.names.seed, q.name[:size])}
		}
	}
	// Loops of so little that the processor has several of their steps, and so waits for memory, under way.
	for i := range queries {
		if p := &queries[i].place; p.set != nil {
			p.shard = p.zone.names.shard(p.zone.names.index(p.hash))
		}
	}
	for i := range queries {
		if p := &queries[i].place; p.shard != "" {
			p.read = p.shard[0]
		}
	}
	for i := range queries {
		if p := &queries[i].place; p.shard != "" {
			n := p.shard.len()
			if at := strings.IndexByte(string(p.shard[2:2+n]), byte(p.hash)); at >= 0 {
				off := p.shard.offset(at, n)
				p.read = p.shard[off] + p.shard[min(off+64, len(p.shard)-1)]
			}
		}
	}
}
