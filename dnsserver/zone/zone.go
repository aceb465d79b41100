package zone

import (
	"iter"
	"net/netip"
)

// Signing says who signs a zone (RFC 4034, RFC 4035).
type Signing uint8

const (
	// Unsigned zones have no signatures.
	Unsigned Signing = iota
	// Presigned zones hold their signatures and NSEC records, which are added to answers where they are asked for.
	Presigned
	// Online zones are signed answer by answer, by another package: see [Sign].
	Online
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
	// Records of the zone, in any order, without the apex' SOA and NS. Equal ones count once.
	Records []Record
	// Partial says that the zone holds only some of its names, and only addresses and pointers of these: a question about
	// anything else is Foreign instead of NXDOMAIN. The apex belongs to the others.
	Partial bool
	// Mode says who signs. The zero value is nobody.
	Mode Signing
}

// NameServer is a name server with its addresses, which become records where its name is within the zone.
type NameServer struct {
	Name      string
	Addresses []netip.Addr
}

// Timers of the SOA in seconds (RFC 1912 section 2.2, shortened: zones change with every machine).
const (
	soaRefresh = 60
	soaRetry   = 10
	soaExpire  = 604800
)

// Zone is an immutable zone.
type Zone struct {
	// origin, ttl, mode, partial and ns, the origin's NS records, are those of all versions.
	origin  []byte
	ttl     uint32
	mode    Signing
	partial bool
	ns      []Record

	serial uint32
	// soa is the SOA's data, apex what the origin has, names what all others have. order is for presigned zones.
	soa   []byte
	apex  node
	names directory
	order order
	// negative is the SOA of negative answers, hinfo the answer to ANY.
	negative, hinfo rrset
}

// Origin returns the zone's name in lower case, with final dot.
func (z *Zone) Origin() string { return textOf(z.origin) }

// Serial returns the SOA's serial.
func (z *Zone) Serial() uint32 { return z.serial }

// Mode says who signs the zone.
func (z *Zone) Mode() Signing { return z.mode }

// Len returns the number of names that exist, empty non-terminals included.
func (z *Zone) Len() int {
	if z.partial && z.apex.empty() {
		return z.names.count
	}
	return z.names.count + 1
}

// node returns what a name has; rel is what stands before the origin, in lower case.
func (z *Zone) node(rel []byte) (node, bool) {
	if len(rel) == 0 {
		return z.apex, !z.partial || !z.apex.empty()
	}
	return z.names.find(rel)
}

// SOA returns the zone's SOA record.
func (z *Zone) SOA() Record {
	return Record{Name: z.Origin(), Type: TypeSOA, TTL: z.ttl, Data: z.soa}
}

// Records returns the records of one name, in order of type and data, signatures last; those of the origin include SOA and
// NS. The records belong to the caller.
func (z *Zone) Records(name string) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		wire, err := AppendName(nil, name)
		if err != nil || !within(wire, z.origin) {
			return
		}
		if n, ok := z.node(wire[:len(wire)-len(z.origin)]); ok {
			n.all(textOf(wire), yield)
		}
	}
}

// All returns all records: the SOA, the others of the origin, and those of all names in no particular order, each name's
// together.
func (z *Zone) All() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		if !z.partial && !yield(z.SOA()) {
			return
		}
		for r := range z.Records(z.Origin()) {
			if r.Type != TypeSOA && !yield(r) {
				return
			}
		}
		for name, n := range z.names.all() {
			if !n.all(textOf(append([]byte(name), z.origin...)), yield) {
				return
			}
		}
	}
}

// all yields the records of a node.
func (n node) all(name string, yield func(Record) bool) bool {
	for _, signatures := range [...]bool{false, true} {
		off, count := n.sets()
		for ; count > 0; count-- {
			s := rrset(n[off:])
			off += s.len()
			records := s.records()
			if signatures {
				records = s.signatures()
			}
			for records != "" {
				end := fixed + dataSize(records)
				r := Record{Name: name, Type: Type(uint16(records[2])<<8 | uint16(records[3])), TTL: ttlOf(records), Data: []byte(records[fixed:end])}
				if records = records[end:]; !yield(r) {
					return false
				}
			}
		}
	}
	return true
}

// within reports whether a name is an origin or below it.
func within(name, origin []byte) bool {
	i := 0
	for len(name)-i > len(origin) {
		i += 1 + int(name[i])
	}
	return string(name[i:]) == string(origin)
}
