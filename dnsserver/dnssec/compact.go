package dnssec

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// maxChain bounds the aliases that one answer follows.
const maxChain = 8

// look is one name as an answer looks at it.
type look struct {
	zone *zone.Zone
	keys onlineKeys
	// name is in wire form and lower case; at is its offset in the message.
	name []byte
	at   int
	// sets are what it has, signatures what a zone that is signed beforehand has for them.
	sets       []rrset
	signatures [][]byte
	exists     bool
}

// answer fills in a reply and returns its code.
func (o *Online) answer(ctx context.Context, set *zone.Set, r *reply) (zone.Rcode, error) {
	v := era(time.Now())
	name, at := r.q.Name(), headerSize
	var first *zone.Zone
	for chain := 0; ; chain++ {
		l, err := o.look(set, name, at)
		if err != nil {
			return 0, err
		}
		if chain == 0 {
			first = l.zone
		}
		switch {
		case first == nil:
			return 0, errors.New("no zone has the name")
		case l.zone != first || chain > maxChain:
			return zone.Success, nil // The resolver asks the other zone by itself.
		}
		typ := r.q.Type()
		if s := l.find(typ); s != nil {
			_, err := o.put(ctx, r, l, *s, v)
			return zone.Success, err
		}
		if l.zone.Mode() == zone.Online && l.exists && len(l.sets) > 0 && typ == zone.TypeANY {
			// RFC 8482 section 4.2
			s := rrset{typ: zone.TypeHINFO, ttl: l.zone.SOA().TTL, data: [][]byte{[]byte("\x07RFC8482\x00")}}
			_, err := o.put(ctx, r, l, s, v)
			return zone.Success, err
		}
		if alias := l.find(zone.TypeCNAME); alias != nil && typ != zone.TypeNSEC && typ != zone.TypeRRSIG {
			if at, err = o.put(ctx, r, l, *alias, v); err != nil {
				return 0, err
			}
			name = alias.data[0]
			continue
		}
		if l.zone.Mode() != zone.Online {
			return 0, fmt.Errorf("zone %s is not signed online", l.zone.Origin())
		}
		return o.deny(ctx, r, l, v)
	}
}

// look looks a name up.
func (o *Online) look(set *zone.Set, name []byte, at int) (*look, error) {
	// The set is asked for a type that no name has: the outcome says whether the name exists.
	probe := append(make([]byte, 0, headerSize+maxName+questionTail), 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	probe = append(append(probe, name...), 0, byte(typeNXNAME), 0, classIN)
	var q zone.Query
	if zone.Parse(probe, &q) != zone.Ask {
		return nil, errors.New("malformed name")
	}
	l := &look{zone: set.Zone(&q), name: name, at: at}
	if l.zone == nil {
		return l, nil
	}
	origin := l.zone.Origin()
	if l.zone.Mode() == zone.Online {
		if l.keys = (*o.keys.Load())[origin]; l.keys.active == nil {
			return nil, fmt.Errorf("zone %s has no keys", origin)
		}
	}
	if hasRecords(name) {
		l.read()
	}
	if l.exists = len(l.sets) > 0; !l.exists {
		_, outcome := set.Answer(nil, &q, &zone.Reply{Max: zone.MaxMessage})
		l.exists = outcome != zone.NoName
	}
	return l, nil
}

// hasRecords reports whether a name can be one of a zone: whether its text means nothing else.
func hasRecords(name []byte) bool {
	for i := 0; name[i] != 0; i += 1 + int(name[i]) {
		label := name[i+1 : i+1+int(name[i])]
		if bytes.IndexFunc(label, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '.' || c == '\\' || c == '"' }) >= 0 {
			return false
		}
	}
	return true
}

// read reads what the name has in its zone.
func (l *look) read() {
	var plain []zone.Record
	for r := range l.zone.Records(zone.TextName(l.name)) {
		switch {
		case r.Type == zone.TypeRRSIG:
			l.signatures = append(l.signatures, r.Data)
		case !isOfKeys(r.Type) || l.keys.active == nil:
			plain = append(plain, r)
		}
	}
	if len(plain) > 0 && l.keys.active != nil && len(l.name) == len(l.keys.active.owner) {
		plain = append(plain, l.keys.records...)
	}
	l.sets = group(plain, l.zone.SOA().TTL)
}

func (l *look) find(typ zone.Type) *rrset {
	for i := range l.sets {
		if l.sets[i].typ == typ {
			return &l.sets[i]
		}
	}
	return nil
}

// put adds a set of the name to the answer, signed, and returns the offset of its first data.
func (o *Online) put(ctx context.Context, r *reply, l *look, set rrset, v validity) (int, error) {
	var signatures [][]byte
	keys := []*Key{l.keys.active}
	switch {
	case l.keys.active == nil:
		keys = nil
		for _, s := range l.signatures {
			if coveredBy(s) == set.typ {
				signatures = append(signatures, s)
			}
		}
	case isOfKeys(set.typ):
		keys = l.keys.all
	}
	for _, k := range keys {
		s, err := o.sign(ctx, k, l.name, set, v)
		if err != nil {
			return 0, err
		}
		signatures = append(signatures, s)
	}
	return r.add(sectionAnswer, l.at, set, set.ttl, signatures...), nil
}

// deny says that the name has no such data. What does not exist is said to have nothing but the type NXNAME (RFC 9824
// section 3.1): one NSEC record proves it, and names no other name of the zone.
func (o *Online) deny(ctx context.Context, r *reply, l *look, v validity) (zone.Rcode, error) {
	record := l.zone.SOA()
	soa := rrset{typ: zone.TypeSOA, ttl: record.TTL, data: [][]byte{record.Data}}
	negative := min(record.TTL, binary.BigEndian.Uint32(record.Data[len(record.Data)-soaMinimum:]))
	sets := l.sets
	if !l.exists {
		sets = []rrset{{typ: typeNXNAME}}
	}
	proof := nsec(string(successor(l.name, l.keys.active.owner)), sets, negative)
	proven, err := o.sign(ctx, l.keys.active, l.name, proof, v)
	if err != nil {
		return 0, err
	}
	switch r.q.Type() {
	case zone.TypeNSEC:
		r.add(sectionAnswer, l.at, proof, negative, proven)
		return zone.Success, nil
	case zone.TypeRRSIG:
		// As much of it as can be made for any name.
		r.add(sectionAnswer, l.at, rrset{typ: zone.TypeRRSIG, data: [][]byte{proven}}, negative)
		return zone.Success, nil
	}
	origin := l.at + len(l.name) - len(l.keys.active.owner)
	signed, err := o.sign(ctx, l.keys.active, l.keys.active.owner, soa, v)
	if err != nil {
		return 0, err
	}
	r.add(sectionAuthority, origin, soa, negative, signed)
	r.add(sectionAuthority, l.at, proof, negative, proven)
	if !l.exists && r.q.Compact() {
		return zone.NameError, nil
	}
	return zone.Success, nil
}

// successor returns the name that comes right after another in canonical order: the one with a zero octet as a label
// before it (RFC 9824 section 3.1). Where there is no room for that, it is the least name that follows at the same depth
// (RFC 4471 section 3.1.1), or the origin.
func successor(name, origin []byte) []byte {
	if len(name)+2 <= maxName {
		return append([]byte{1, 0}, name...)
	}
	rest := name
	for len(rest) > len(origin) {
		label, below := rest[1:1+rest[0]], rest[1+rest[0]:]
		if len(label) < maxLabel && len(rest) < maxName {
			next := append([]byte{byte(len(label) + 1)}, label...)
			return append(append(next, 0), below...)
		}
		// Octets that cannot grow fall away; upper case is no part of the canonical order.
		label = bytes.TrimRight(label, "\xff")
		if n := len(label); n > 0 {
			next := append([]byte{byte(n)}, label...)
			if next[n]++; next[n] == 'A' {
				next[n] = 'Z' + 1
			}
			return append(next, below...)
		}
		rest = below
	}
	return bytes.Clone(origin)
}
