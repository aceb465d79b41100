package dnssec

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// rrset is the data of one name and type, in canonical order, each datum once (RFC 4034 section 6.3).
type rrset struct {
	typ  zone.Type
	ttl  uint32
	data [][]byte
}

func (a rrset) equal(b rrset) bool {
	return a.typ == b.typ && a.ttl == b.ttl && slices.EqualFunc(a.data, b.data, bytes.Equal)
}

// group sorts the records of one name into sets by type. A TTL of 0 means ttl; the smallest of a set is the set's, as in
// zones.
func group(records []zone.Record, ttl uint32) []rrset {
	var sets []rrset
	for _, r := range records {
		if r.TTL == 0 {
			r.TTL = ttl
		}
		i, found := slices.BinarySearchFunc(sets, r.Type, func(s rrset, typ zone.Type) int { return cmp.Compare(s.typ, typ) })
		if !found {
			sets = slices.Insert(sets, i, rrset{typ: r.Type, ttl: r.TTL})
		}
		sets[i].ttl = min(sets[i].ttl, r.TTL)
		at, found := slices.BinarySearchFunc(sets[i].data, r.Data, bytes.Compare)
		if !found {
			sets[i].data = slices.Insert(sets[i].data, at, r.Data)
		}
	}
	return sets
}

// records returns the set as records of an owner.
func (a rrset) records(owner string) []zone.Record {
	records := make([]zone.Record, 0, len(a.data))
	for _, data := range a.data {
		records = append(records, zone.Record{Name: owner, Type: a.typ, TTL: a.ttl, Data: data})
	}
	return records
}

// validity is when a signature is valid, in seconds of the era (RFC 4034 section 3.1.5).
type validity struct {
	inception, expiration uint32
}

// Fixed offsets within the data of an RRSIG (RFC 4034 section 3.1).
const (
	rrsigExpiration = 8
	rrsigInception  = 12
	rrsigTag        = 16
	rrsigSigner     = 18
)

// appendPrefix appends what an RRSIG says besides the signature.
func (k *Key) appendPrefix(dst, owner []byte, set rrset, v validity) []byte {
	count := zone.Labels(owner)
	if owner[0] == 1 && owner[1] == '*' {
		count-- // RFC 4034 section 3.1.3; zones have no such name, but it can be asked for.
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(set.typ))
	dst = append(dst, Algorithm, byte(count))
	dst = binary.BigEndian.AppendUint32(dst, set.ttl)
	dst = binary.BigEndian.AppendUint32(dst, v.expiration)
	dst = binary.BigEndian.AppendUint32(dst, v.inception)
	dst = binary.BigEndian.AppendUint16(dst, k.tag)
	return append(dst, k.owner...)
}

// digest returns what is signed: the RRSIG's prefix and the set in canonical form (RFC 4034 section 3.1.8.1).
func digest(prefix, owner []byte, set rrset) [sha256.Size]byte {
	const class = 1
	msg := append(make([]byte, 0, 512), prefix...)
	for _, data := range set.data {
		msg = append(msg, owner...)
		msg = binary.BigEndian.AppendUint16(msg, uint16(set.typ))
		msg = binary.BigEndian.AppendUint16(msg, class)
		msg = binary.BigEndian.AppendUint32(msg, set.ttl)
		msg = binary.BigEndian.AppendUint16(msg, uint16(len(data)))
		msg = append(msg, data...)
	}
	return sha256.Sum256(msg)
}

// sign returns the data of the set's RRSIG. Owner is in wire form and lower case.
func (k *Key) sign(owner []byte, set rrset, v validity) ([]byte, error) {
	data := k.appendPrefix(make([]byte, 0, rrsigSigner+len(k.owner)+PublicSize), owner, set, v)
	signature, err := k.signDigest(digest(data, owner, set))
	return append(data, signature[:]...), err
}

// signDigest signs deterministically (RFC 6979), so that all servers make the same octets, and returns r and s as
// RFC 6605 section 4 has them.
func (k *Key) signDigest(sum [sha256.Size]byte) (signature [2 * scalarSize]byte, err error) {
	if k.private == nil {
		return signature, errors.New("the key has no private part")
	}
	der, err := k.private.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return signature, fmt.Errorf("cannot sign with key %s: %w", k, err)
	}
	// SEQUENCE { INTEGER r, INTEGER s }: each at most 33 octets, so that all lengths are one octet.
	rest := der[2:]
	for i := range 2 {
		n := int(rest[1])
		integer := bytes.TrimLeft(rest[2:2+n], "\x00")
		copy(signature[(i+1)*scalarSize-len(integer):], integer)
		rest = rest[2+n:]
	}
	return signature, nil
}
