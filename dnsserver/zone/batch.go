package zone

import (
	"hash/maphash"
	"unsafe"
)

// line is the size of a cache line, in octets.
const line = 64

// place is where a question's name was found, for the Answer that follows.
type place struct {
	set   *Set
	zone  *Zone
	hash  uint64
	shard shard
	// first is the first entry of the shard that may be the name's, or -1.
	first int32
	// size is what the name has before the zone's origin, in octets.
	size uint8
}

// ParseAll parses messages as [Parse] does, each into the query of the same index, and looks the names of the questions
// up. [Set.Answer] gives the same answers without; with it, the memory of several names is fetched at once while others
// are parsed, instead of being waited for one after the other.
func (s *Set) ParseAll(messages [][]byte, queries []Query, verdicts []Verdict) {
	for i, msg := range messages {
		verdicts[i] = Parse(msg, &queries[i])
	}
	for i := range messages {
		if q := &queries[i]; verdicts[i] == Ask && q.class == classIN {
			s.locate(q)
		}
	}
	for i := range messages {
		queries[i].place.toShard()
	}
	for i := range messages {
		queries[i].place.toEntry()
	}
}

// locate finds a question's zone and begins to fetch where its name's shard is. The apex is at hand.
func (s *Set) locate(q *Query) {
	z, size := s.zoneOf(q.Name())
	if z == nil || size == 0 {
		return
	}
	p := &q.place // Parse has cleared it.
	p.set, p.zone, p.size, p.first = s, z, uint8(size), -1
	p.hash = maphash.Bytes(z.names.seed, q.name[:size])
	z.names.prefetch(z.names.index(p.hash))
}

// toShard begins to fetch the head of the shard.
func (p *place) toShard() {
	if p.set == nil {
		return
	}
	if p.shard = *p.zone.names.at(p.zone.names.index(p.hash)); p.shard != "" {
		prefetch(p.shard.address(0))
	}
}

// toEntry begins to fetch the entry; most have no more than two lines.
func (p *place) toEntry() {
	if p.shard == "" {
		return
	}
	i := p.shard.tagged(p.hash, 0)
	if p.first = int32(i); i >= 0 {
		n := p.shard.len()
		off, end := p.shard.offset(i, n), p.shard.offset(i+1, n)
		at := p.shard.address(off)
		prefetch(at)
		if next := off + line - int(uintptr(at)%line); next < end {
			prefetch(p.shard.address(next))
		}
	}
}

// prefetch begins to fetch what [directory.at] returns. That would look at the page, whether there is one, and wait for it.
func (d *directory) prefetch(i int) {
	prefetch(unsafe.Add(unsafe.Pointer(d.pages[i/pageSize]), uintptr(i%pageSize)*unsafe.Sizeof(shard(""))))
}

// address returns where the octet at an offset is.
func (s shard) address(off int) unsafe.Pointer {
	return unsafe.Pointer(unsafe.StringData(string(s[off:])))
}
