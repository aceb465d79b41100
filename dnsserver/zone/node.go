package zone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
)

// maxAnswer bounds the records of one name and type, in octets, so that they fit a message with any question and OPT.
const maxAnswer = MaxMessage - headerSize - maxName - questionTail - optSize

// MaxAddresses is how many addresses of one family a name can have: as many as fit one message.
const MaxAddresses = maxAnswer / 28

// fixed is the size of a record without its data, whose owner is a compression pointer (RFC 1035 section 4.1.4).
const fixed = 12

// A node is what a name has: the number of names right below it (a varint; not counted at the apex), the number of its
// RRsets, and these in order of type. It is an empty non-terminal where that number is 0.
type node string

// sets returns where the RRsets begin, and their number.
func (n node) sets() (off, count int) {
	for n[off] >= 0x80 {
		off++
	}
	return off + 2, int(n[off+1])
}

// children returns the number of names right below the node.
func (n node) children() (count uint32) {
	for i := 0; ; i++ {
		count |= uint32(n[i]&0x7f) << (7 * i)
		if n[i] < 0x80 {
			return count
		}
	}
}

// withChildren returns the same node with another number of names below it.
func (n node) withChildren(count uint32) node {
	off, _ := n.sets()
	return node(binary.AppendUvarint(nil, uint64(count))) + n[off-1:]
}

// empty reports whether the node has no data.
func (n node) empty() bool {
	_, count := n.sets()
	return count == 0
}

// find returns the RRset of a type, or an empty one.
func (n node) find(typ Type) rrset {
	off, count := n.sets()
	for ; count > 0; count-- {
		s := rrset(n[off:])
		if s.typ() == typ {
			return s
		}
		off += s.len()
	}
	return ""
}

// An rrset is a header - type, number of records, their octets, their size where all are alike and may be rotated (else
// 0), and number and octets of the signatures - and the records and signatures in the form of answers, with the
// question's name as owner. It may have other octets behind it.
type rrset string

const rrsetSize = 10

func (s rrset) u16(off int) int { return int(s[off])<<8 | int(s[off+1]) }
func (s rrset) typ() Type       { return Type(s.u16(0)) }
func (s rrset) count() int      { return s.u16(2) }
func (s rrset) size() int       { return s.u16(4) }
func (s rrset) stride() int     { return int(s[6]) }
func (s rrset) sigCount() int   { return int(s[7]) }
func (s rrset) sigSize() int    { return s.u16(8) }
func (s rrset) len() int        { return rrsetSize + s.size() + s.sigSize() }

// records returns the records, signatures the signatures.
func (s rrset) records() string    { return string(s[rrsetSize : rrsetSize+s.size()]) }
func (s rrset) signatures() string { return string(s[rrsetSize+s.size() : s.len()]) }

// dataSize returns the size of the data of a record in the form of answers.
func dataSize(record string) int { return int(record[10])<<8 | int(record[11]) }

// ttlOf returns its TTL.
func ttlOf(record string) uint32 {
	return uint32(record[6])<<24 | uint32(record[7])<<16 | uint32(record[8])<<8 | uint32(record[9])
}

// encoder makes nodes. Its buffers are used again.
type encoder struct {
	ttl     uint32
	records []Record
	sorting byType
}

// encode appends the node of a name with these records, whose order it changes. They have passed check.
func (e *encoder) encode(dst []byte, records []Record, children uint32) ([]byte, error) {
	e.sorting = records
	sort.Sort(&e.sorting)
	records = distinct(records)
	if err := checkTogether(records); err != nil {
		return nil, err
	}
	plain, sigs := e.split(records)
	dst = append(binary.AppendUvarint(dst, uint64(children)), 0)
	sets := len(dst) - 1
	for len(plain) > 0 {
		typ := plain[0].Type
		n := prefix(plain, func(r Record) bool { return r.Type == typ })
		s := prefix(sigs, func(r Record) bool { return covered(r) == typ })
		if dst[sets] == math.MaxUint8 {
			return nil, errors.New("more than 255 types")
		}
		dst[sets]++
		var err error
		if dst, err = e.set(dst, plain[:n], sigs[:s]); err != nil {
			return nil, err
		}
		plain, sigs = plain[n:], sigs[s:]
	}
	if len(sigs) > 0 {
		return nil, fmt.Errorf("signature of type %d, of which there is no record", covered(sigs[0]))
	}
	return dst, nil
}

// split takes the signatures out of sorted records. Those of one type lie together, since what they cover comes first in
// them.
func (e *encoder) split(records []Record) (plain, sigs []Record) {
	at := prefix(records, func(r Record) bool { return r.Type < TypeRRSIG })
	end := at + prefix(records[at:], func(r Record) bool { return r.Type == TypeRRSIG })
	if at == end {
		return records, nil
	}
	e.records = append(append(e.records[:0], records[:at]...), records[end:]...)
	return e.records, records[at:end]
}

// prefix returns how many records at the beginning are alike.
func prefix(records []Record, alike func(Record) bool) (n int) {
	for n < len(records) && alike(records[n]) {
		n++
	}
	return n
}

// set appends an RRset with its signatures.
func (e *encoder) set(dst []byte, records, sigs []Record) ([]byte, error) {
	if len(sigs) > math.MaxUint8 {
		return nil, fmt.Errorf("%d signatures of one type", len(sigs))
	}
	typ, ttl, start := records[0].Type, smallestTTL(records, e.ttl), len(dst)
	dst = append(dst, make([]byte, rrsetSize)...)
	dst, err := appendRecords(dst, records, ttl)
	if err != nil {
		return nil, err
	}
	size := len(dst) - start - rrsetSize
	if dst, err = appendRecords(dst, sigs, ttl); err != nil {
		return nil, err
	}
	head := dst[start:]
	binary.BigEndian.PutUint16(head, uint16(typ))
	binary.BigEndian.PutUint16(head[2:], uint16(len(records)))
	binary.BigEndian.PutUint16(head[4:], uint16(size))
	if (typ == TypeA || typ == TypeAAAA) && len(records) > 1 {
		head[6] = byte(size / len(records))
	}
	head[7] = byte(len(sigs))
	binary.BigEndian.PutUint16(head[8:], uint16(len(head)-rrsetSize-size))
	return dst, nil
}

// appendRecords appends records in the form of answers, as long as they fit one.
func appendRecords(dst []byte, records []Record, ttl uint32) ([]byte, error) {
	start := len(dst)
	for _, r := range records {
		if dst = appendRecord(dst, r.Type, ttl, r.Data); len(dst)-start > maxAnswer {
			return nil, fmt.Errorf("%d records do not fit one message", len(records))
		}
	}
	return dst, nil
}

// appendRecord appends a record in the form of answers.
func appendRecord(dst []byte, typ Type, ttl uint32, data []byte) []byte {
	dst = append(dst, 0xc0, headerSize, byte(typ>>8), byte(typ), 0, classIN)
	dst = binary.BigEndian.AppendUint32(dst, ttl)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(data)))
	return append(dst, data...)
}

// covered returns the type that a signature covers.
func covered(r Record) Type { return Type(binary.BigEndian.Uint16(r.Data)) }

// smallestTTL returns the TTL of an RRset, which is one (RFC 2181 section 5.2).
func smallestTTL(records []Record, zone uint32) uint32 {
	ttl := uint32(0)
	for _, r := range records {
		own := r.TTL
		if own == 0 {
			own = zone
		}
		if ttl == 0 || own < ttl {
			ttl = own
		}
	}
	return ttl
}

// byType sorts records by type and data.
type byType []Record

func (r byType) Len() int           { return len(r) }
func (r byType) Less(i, j int) bool { return compareRecords(r[i], r[j]) < 0 }
func (r byType) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }

func compareRecords(a, b Record) int {
	if a.Type != b.Type {
		return int(a.Type) - int(b.Type)
	}
	return bytes.Compare(a.Data, b.Data)
}

// distinct takes repetitions out of sorted records.
func distinct(records []Record) []Record {
	kept := 0
	for i := range records {
		if kept == 0 || compareRecords(records[kept-1], records[i]) != 0 {
			records[kept] = records[i]
			kept++
		}
	}
	return records[:kept]
}

// checkTogether refuses what may not stand at one name. The records are sorted.
func checkTogether(records []Record) error {
	pointers, aliases, others := 0, 0, 0
	for _, r := range records {
		switch r.Type {
		case TypePTR:
			pointers++
			others++
		case TypeCNAME:
			aliases++
		case TypeRRSIG, TypeNSEC: // RFC 4034 section 2.5
		default:
			others++
		}
	}
	switch {
	case pointers > 1:
		return errors.New("second PTR of one name")
	case aliases > 1:
		return errors.New("second CNAME of one name")
	case aliases > 0 && others > 0:
		return errors.New("CNAME beside other data") // RFC 1034 section 3.6.2
	}
	return nil
}
