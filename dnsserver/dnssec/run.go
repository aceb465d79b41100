package dnssec

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// Offsets from the end of an SOA's data (RFC 1035 section 3.3.13).
const (
	soaNumbers = 20
	soaMinimum = 4
)

// run is one signing of one version of a zone.
type run struct {
	*Signer
	// base is what the changes are for; former has signatures that may still do, or is nil.
	base, former *zone.Zone
	soa          zone.Record
	// negative is the TTL of the NSEC records (RFC 9077): that of negative answers.
	negative uint32
	// names are those whose records are made anew, by their wire form.
	names map[string]*name
}

// name is a name of the new version.
type name struct {
	wire string
	key  string
	// plain is what it has besides the records that signing makes; none: it is gone.
	plain []rrset
	// next is who follows it in the chain.
	next string
}

func (s *Signer) newRun(base, former *zone.Zone, serial uint32) (*run, error) {
	if base.Origin() != s.active.origin || base.Mode() != zone.Presigned {
		return nil, fmt.Errorf("cannot sign zone %s with the keys of %s", base.Origin(), s.active.origin)
	}
	soa := base.SOA()
	if len(soa.Data) < soaNumbers {
		return nil, fmt.Errorf("cannot sign zone %s: it has no SOA", base.Origin())
	}
	soa.Data = slices.Clone(soa.Data)
	binary.BigEndian.PutUint32(soa.Data[len(soa.Data)-soaNumbers:], serial)
	if former != nil && !s.knows(former) {
		former = nil
	}
	return &run{
		Signer: s, base: base, former: former, soa: soa, names: map[string]*name{},
		negative: min(soa.TTL, binary.BigEndian.Uint32(soa.Data[len(soa.Data)-soaMinimum:])),
	}, nil
}

// everything makes all names anew.
func (r *run) everything(changes []zone.Change) error {
	var owner string
	var records []zone.Record
	put := func() error {
		if owner == "" {
			return nil
		}
		return r.put(owner, records)
	}
	for record := range r.base.All() {
		if record.Name != owner {
			if err := put(); err != nil {
				return err
			}
			owner, records = record.Name, records[:0]
		}
		records = append(records, record)
	}
	if err := put(); err != nil {
		return err
	}
	if err := r.apply(changes); err != nil {
		return err
	}
	r.ring()
	return nil
}

// incremental makes anew the names that change, those whose turn came since the tick, and their neighbours in the chain.
func (r *run) incremental(tick int64, changes []zone.Change) error {
	before := schedule{tick: tick}
	if tick != r.schedule.tick {
		var last string
		for record := range r.base.All() {
			if record.Name == last {
				continue
			}
			last = record.Name
			wire, err := zone.AppendName(nil, record.Name)
			if err != nil {
				return err
			}
			if before.turn(string(wire)) != r.schedule.turn(string(wire)) {
				if err := r.load(string(wire)); err != nil {
					return err
				}
			}
		}
	}
	if err := r.load(string(r.origin)); err != nil {
		return err
	}
	if err := r.apply(changes); err != nil {
		return err
	}
	return r.mend()
}

// load makes a name of base anew, as it is there.
func (r *run) load(wire string) error {
	if r.names[wire] != nil {
		return nil
	}
	text := zone.TextName(wire)
	return r.put(text, slices.Collect(r.base.Records(text)))
}

// apply has names be what the changes say.
func (r *run) apply(changes []zone.Change) error {
	for _, c := range changes {
		if err := r.put(c.Name, c.Records); err != nil {
			return err
		}
	}
	return nil
}

// put says what a name has from now on.
func (r *run) put(owner string, records []zone.Record) error {
	wire, err := zone.AppendName(nil, owner)
	if err != nil {
		return fmt.Errorf("cannot sign zone %s: %w", r.Origin(), err)
	}
	if !within(wire, r.origin) {
		return fmt.Errorf("cannot sign zone %s: %s is not within it", r.Origin(), owner)
	}
	n := r.names[string(wire)]
	if n == nil {
		n = &name{wire: string(wire), key: sortKey(wire)}
		r.names[n.wire] = n
	}
	apex := len(wire) == len(r.origin)
	plain := make([]zone.Record, 0, len(records)+len(r.records)+2)
	for _, record := range records {
		switch record.Type {
		case zone.TypeRRSIG, zone.TypeNSEC, zone.TypeDNSKEY, zone.TypeCDS, zone.TypeCDNSKEY, zone.TypeSOA:
		case zone.TypeNS:
			if !apex {
				plain = append(plain, record)
			}
		default:
			plain = append(plain, record)
		}
	}
	if apex {
		plain = append(append(plain, r.soa), r.records...)
		for record := range r.base.Records(r.base.Origin()) {
			if record.Type == zone.TypeNS {
				plain = append(plain, record)
			}
		}
	}
	n.plain = group(plain, r.soa.TTL)
	return nil
}

// sorted returns the names in canonical order.
func (r *run) sorted() []*name {
	return slices.SortedFunc(maps.Values(r.names), func(a, b *name) int { return strings.Compare(a.key, b.key) })
}

// ring links all names that there are: the chain is a ring (RFC 4034 section 4.1.1).
func (r *run) ring() {
	names := slices.DeleteFunc(r.sorted(), func(n *name) bool { return len(n.plain) == 0 })
	for i, n := range names {
		n.next = names[(i+1)%len(names)].wire
	}
}

// finish signs and returns the changes.
func (r *run) finish(ctx context.Context, err error) ([]zone.Change, error) {
	if err != nil {
		return nil, err
	}
	return r.signAll(ctx, r.sorted())
}
