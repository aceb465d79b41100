package zone

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"net/netip"
)

// Config is what a zone is built from.
type Config struct {
	// Origin is the zone's name; a final dot is optional.
	Origin string
	// Serial of the SOA.
	Serial uint32
	// TTL of all records in seconds, at most 2^31-1 (RFC 2181 section 8).
	TTL uint32
	// NegativeTTL is how long resolvers may remember that something does not exist, in seconds. Zero means the smaller of
	// TTL and 10: names appear whenever machines do.
	NegativeTTL uint32
	// NS are the zone's name servers; the first is the SOA's primary. At least one, unless Partial.
	NS []NameServer
	// Records of the zone, in any order. Equal addresses of one name count once.
	Records []Record
	// Partial says that the zone holds only some of its names: a question about another is Foreign instead of NXDOMAIN.
	// The apex belongs to the others.
	Partial bool
}

// NameServer is a name server with its addresses, which become records where its name is within the zone.
type NameServer struct {
	Name      string
	Addresses []netip.Addr
}

// Record is one datum of a name: exactly one of Address and Target is set.
type Record struct {
	// Name is absolute; a final dot is optional.
	Name string
	// Address makes an A or AAAA record.
	Address netip.Addr
	// Target makes a PTR record to this absolute name.
	Target string
}

// Timers of the SOA in seconds (RFC 1912 section 2.2, shortened: zones change with every machine).
const (
	soaRefresh = 60
	soaRetry   = 10
	soaExpire  = 604800
)

// Zone is an immutable zone.
type Zone struct {
	origin  []byte
	serial  uint32
	partial bool
	// names is every existing name, nodes what it has; a node's number is its number in the table.
	names table
	nodes []node
	sets  []rrset
	// arena holds the wire form of every answer: records whose owner is a pointer to the question's name.
	arena []byte
	// soa is the record for negative answers, without its owner; hinfo is the answer to ANY (RFC 8482 section 4.2).
	soa, hinfo []byte
}

// node is an existing name; without sets it is an empty non-terminal.
type node struct {
	first uint32
	count uint32
}

// rrset is an answer in the arena: count records from off to end, then extra additional records to extraEnd.
type rrset struct {
	off, end, extraEnd uint32
	count, extra       uint16
	typ                Type
	// stride is the size of each record where all are equally large, so that they can be rotated; else 0.
	stride uint16
}

// Origin returns the zone's name in lower case, with final dot.
func (z *Zone) Origin() string { return textOf(z.origin) }

// Serial returns the SOA's serial.
func (z *Zone) Serial() uint32 { return z.serial }

// Len returns the number of names that exist, empty non-terminals included.
func (z *Zone) Len() int { return len(z.nodes) }

// find returns the answer for a type at a node.
func (z *Zone) find(n node, typ Type) *rrset {
	for i := n.first; i < n.first+n.count; i++ {
		if z.sets[i].typ == typ {
			return &z.sets[i]
		}
	}
	return nil
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

// appendRecord appends a record; owner is in wire form.
func appendRecord(dst, owner []byte, typ Type, ttl uint32, data []byte) []byte {
	dst = append(dst, owner...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(typ))
	dst = binary.BigEndian.AppendUint16(dst, classIN)
	dst = binary.BigEndian.AppendUint32(dst, ttl)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(data)))
	return append(dst, data...)
}
