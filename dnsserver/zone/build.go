package zone

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
)

// maxAnswer bounds the records of one name and type, in octets, so that they fit a message with any question and OPT.
const maxAnswer = MaxMessage - headerSize - maxName - questionTail - optSize

// MaxAddresses is how many addresses of one family a name can have: as many as fit one message.
const MaxAddresses = maxAnswer / 28

// questionName is the compressed owner (RFC 1035 section 4.1.4): the name at offset 12, the question's.
var questionName = []byte{0xc0, headerSize}

// builder collects the data of each name. Names are in wire form and lower case.
type builder struct {
	cfg    Config
	origin []byte
	data   map[string]map[Type][][]byte
}

// Build makes a zone. It refuses names outside the origin, malformed names, records that are neither address nor
// pointer, a second PTR of one name, and more records of one name and type than fit a message.
func Build(cfg Config) (*Zone, error) {
	origin, err := appendName(nil, cfg.Origin)
	if err != nil {
		return nil, fmt.Errorf("cannot build zone: %w", err)
	}
	b := &builder{cfg: cfg, origin: origin, data: map[string]map[Type][][]byte{}}
	z, err := b.build()
	if err != nil {
		return nil, fmt.Errorf("cannot build zone %s: %w", textOf(origin), err)
	}
	return z, nil
}

func (b *builder) build() (*Zone, error) {
	if b.cfg.TTL > math.MaxInt32 || b.cfg.NegativeTTL > math.MaxInt32 {
		return nil, fmt.Errorf("ttl above %d", math.MaxInt32)
	}
	if len(b.cfg.NS) == 0 && !b.cfg.Partial {
		return nil, fmt.Errorf("no name server given")
	}
	soa, err := b.soa()
	if err != nil {
		return nil, err
	}
	if err := b.collect(soa); err != nil {
		return nil, err
	}
	if !b.cfg.Partial {
		b.fillGaps()
	}
	b.normalise()
	negative := min(b.cfg.TTL, b.negativeTTL())
	z := &Zone{
		origin: b.origin, serial: b.cfg.Serial, partial: b.cfg.Partial,
		soa:   appendRecord(nil, nil, TypeSOA, negative, soa),
		hinfo: appendRecord(nil, questionName, TypeHINFO, b.cfg.TTL, []byte("\x07RFC8482\x00")),
	}
	return z, b.emit(z)
}

func (b *builder) negativeTTL() uint32 {
	if b.cfg.NegativeTTL != 0 {
		return b.cfg.NegativeTTL
	}
	return min(b.cfg.TTL, 10)
}

// soa returns the SOA's data. A zone without name servers names itself, as RFC 6303 section 3 has it.
func (b *builder) soa() ([]byte, error) {
	data := bytes.Clone(b.origin)
	if len(b.cfg.NS) > 0 {
		var err error
		if data, err = appendName(nil, b.cfg.NS[0].Name); err != nil {
			return nil, err
		}
	}
	data, err := appendName(data, "hostmaster."+textOf(b.origin))
	if err != nil {
		return nil, err
	}
	for _, v := range []uint32{b.cfg.Serial, soaRefresh, soaRetry, soaExpire, b.negativeTTL()} {
		data = binary.BigEndian.AppendUint32(data, v)
	}
	return data, nil
}

func (b *builder) collect(soa []byte) error {
	if !b.cfg.Partial {
		b.add(b.origin, TypeSOA, soa)
	}
	for _, ns := range b.cfg.NS {
		name, err := appendName(nil, ns.Name)
		if err != nil {
			return err
		}
		if !b.cfg.Partial {
			b.add(b.origin, TypeNS, name)
		}
		if !b.within(name) {
			continue
		}
		for _, addr := range ns.Addresses {
			if err := b.addAddress(name, addr); err != nil {
				return err
			}
		}
	}
	for _, r := range b.cfg.Records {
		if err := b.addRecord(r); err != nil {
			return fmt.Errorf("record %q: %w", r.Name, err)
		}
	}
	return nil
}

func (b *builder) addRecord(r Record) error {
	name, err := appendName(nil, r.Name)
	switch {
	case err != nil:
		return err
	case !b.within(name):
		return fmt.Errorf("not within the zone")
	case r.Address.IsValid() == (r.Target != ""):
		return fmt.Errorf("give exactly one of address and target")
	case r.Address.IsValid():
		return b.addAddress(name, r.Address)
	case b.data[string(name)][TypePTR] != nil:
		return fmt.Errorf("second PTR of one name, to %s", r.Target)
	}
	target, err := appendName(nil, r.Target)
	if err != nil {
		return err
	}
	b.add(name, TypePTR, target)
	return nil
}

func (b *builder) addAddress(name []byte, addr netip.Addr) error {
	if !addr.IsValid() {
		return fmt.Errorf("invalid address")
	}
	addr = addr.Unmap().WithZone("")
	typ := TypeA
	if addr.Is6() {
		typ = TypeAAAA
	}
	b.add(name, typ, addr.AsSlice())
	return nil
}

func (b *builder) add(name []byte, typ Type, data []byte) {
	sets := b.data[string(name)]
	if sets == nil {
		sets = map[Type][][]byte{}
		b.data[string(name)] = sets
	}
	sets[typ] = append(sets[typ], data)
}

// within reports whether a name is the origin or below it.
func (b *builder) within(name []byte) bool {
	for i := 0; ; i += 1 + int(name[i]) {
		if bytes.Equal(name[i:], b.origin) {
			return true
		}
		if name[i] == 0 {
			return false
		}
	}
}

// fillGaps makes every name between the origin and a name with data exist (RFC 8020: NXDOMAIN speaks for all below).
func (b *builder) fillGaps() {
	for name := range maps.Clone(b.data) {
		for len(name) > len(b.origin) {
			name = name[1+int(name[0]):]
			if _, ok := b.data[name]; !ok {
				b.data[name] = nil
			}
		}
	}
}

// normalise puts the data of each name and type in order, once each.
func (b *builder) normalise() {
	for _, sets := range b.data {
		for typ, data := range sets {
			slices.SortFunc(data, bytes.Compare)
			sets[typ] = slices.CompactFunc(data, bytes.Equal)
		}
	}
}

// emit writes the tables and answers in order of name, so that the same records make the same arena.
func (b *builder) emit(z *Zone) error {
	names := make([][]byte, 0, len(b.data))
	for _, name := range slices.Sorted(maps.Keys(b.data)) {
		sets := b.data[name]
		n := node{first: uint32(len(z.sets)), count: uint32(len(sets))}
		for _, typ := range slices.Sorted(maps.Keys(sets)) {
			set, err := b.emitSet(z, typ, sets[typ])
			if err != nil {
				return fmt.Errorf("%s: %w", textOf([]byte(name)), err)
			}
			z.sets = append(z.sets, set)
		}
		if len(z.arena) > math.MaxInt32 {
			return fmt.Errorf("zone larger than 2 GiB")
		}
		names = append(names, []byte(name))
		z.nodes = append(z.nodes, n)
	}
	z.names = newTable(names)
	z.nodes, z.sets, z.arena = slices.Clip(z.nodes), slices.Clip(z.sets), slices.Clip(z.arena)
	return nil
}

func (b *builder) emitSet(z *Zone, typ Type, data [][]byte) (rrset, error) {
	set := rrset{typ: typ, off: uint32(len(z.arena)), count: uint16(len(data))}
	for _, d := range data {
		z.arena = appendRecord(z.arena, questionName, typ, b.cfg.TTL, d)
		if len(z.arena)-int(set.off) > maxAnswer {
			return rrset{}, fmt.Errorf("%d records do not fit one message", len(data))
		}
	}
	set.end = uint32(len(z.arena))
	if (typ == TypeA || typ == TypeAAAA) && set.count > 1 {
		set.stride = uint16((set.end - set.off) / uint32(set.count))
	}
	if typ == TypeNS {
		set.extra = b.emitGlue(z, data)
	}
	set.extraEnd = uint32(len(z.arena))
	return set, nil
}

// emitGlue appends the addresses of name servers within the zone as additional records.
func (b *builder) emitGlue(z *Zone, servers [][]byte) (records uint16) {
	for _, name := range servers {
		for _, typ := range []Type{TypeA, TypeAAAA} {
			for _, addr := range b.data[string(name)][typ] {
				z.arena = appendRecord(z.arena, name, typ, b.cfg.TTL, addr)
				records++
			}
		}
	}
	return records
}
