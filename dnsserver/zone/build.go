package zone

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"sort"
)

// Build makes a zone. It refuses names outside the origin, malformed names and data, wildcards and delegations, records
// that may not stand at one name, a second PTR among them, and more records of one name and type than fit a message.
func Build(cfg Config) (*Zone, error) {
	origin, err := AppendName(nil, cfg.Origin)
	if err != nil {
		return nil, fmt.Errorf("cannot build zone: %w", err)
	}
	z := &Zone{origin: origin, serial: cfg.Serial, ttl: cfg.TTL, mode: cfg.Mode, partial: cfg.Partial}
	b := builder{Zone: z, encoder: encoder{ttl: cfg.TTL}, seed: maphash.MakeSeed(), children: map[string]*uint32{}}
	if err := b.build(cfg); err != nil {
		return nil, fmt.Errorf("cannot build zone %s: %w", z.Origin(), err)
	}
	return z, nil
}

// builder makes a zone of records by sorting them by hash, so that it needs little more memory than the zone.
type builder struct {
	*Zone
	encoder encoder
	seed    maphash.Seed
	// records are those of the configuration and the addresses of name servers, numbered through.
	records [2][]Record
	// arena holds the names of items, before the origin.
	arena []byte
	items []item
	// children counts the names right below others than the origin.
	children map[string]*uint32
}

// item is a name of a record.
type item struct {
	hash uint64
	off  uint32
	// record is the record's number plus one, 0 for an empty non-terminal.
	record uint32
	size   uint8
}

func (b *builder) record(i int) Record {
	if own := len(b.records[0]); i >= own {
		return b.records[1][i-own]
	}
	return b.records[0][i]
}

func (b *builder) rel(i item) []byte { return b.arena[i.off : i.off+uint32(i.size)] }

func (b *builder) build(cfg Config) error {
	if cfg.TTL > math.MaxInt32 || cfg.NegativeTTL > math.MaxInt32 {
		return errTTL
	}
	if len(cfg.NS) == 0 && !cfg.Partial {
		return errors.New("no name server given")
	}
	if err := b.setSOA(cfg); err != nil {
		return err
	}
	servers, err := b.setServers(cfg)
	if err != nil {
		return err
	}
	b.records = [2][]Record{cfg.Records, servers}
	apex, err := b.collect()
	if err != nil {
		return err
	}
	if err := b.setApex(&b.encoder, apex); err != nil {
		return err
	}
	return b.emit()
}

// setSOA makes the SOA's data. A zone without name servers names itself, as RFC 6303 section 3 has it.
func (z *Zone) setSOA(cfg Config) (err error) {
	primary := z.origin
	if len(cfg.NS) > 0 {
		if primary, err = AppendName(nil, cfg.NS[0].Name); err != nil {
			return err
		}
	}
	negative := cfg.NegativeTTL
	if negative == 0 {
		negative = min(cfg.TTL, 10)
	}
	data, err := AppendName(bytes.Clone(primary), "hostmaster."+z.Origin())
	if err != nil {
		return err
	}
	for _, v := range []uint32{cfg.Serial, soaRefresh, soaRetry, soaExpire, negative} {
		data = binary.BigEndian.AppendUint32(data, v)
	}
	z.soa = data
	return nil
}

// setServers keeps the NS records, and returns the addresses of the name servers within the zone.
func (z *Zone) setServers(cfg Config) (addresses []Record, err error) {
	for _, ns := range cfg.NS {
		name, err := AppendName(nil, ns.Name)
		if err != nil {
			return nil, err
		}
		if !cfg.Partial {
			z.ns = append(z.ns, Record{Type: TypeNS, Data: name})
		}
		if !within(name, z.origin) {
			continue
		}
		for _, addr := range ns.Addresses {
			addresses = append(addresses, Address(ns.Name, addr))
		}
	}
	return addresses, nil
}

// collect makes the items, sorted, and returns the origin's records.
func (b *builder) collect() (apex []Record, err error) {
	total := len(b.records[0]) + len(b.records[1])
	b.items = make([]item, 0, total)
	for i := range total {
		r, start := b.record(i), len(b.arena)
		if b.arena, err = b.appendRelative(b.arena, r); err != nil {
			return nil, err
		}
		if len(b.arena) == start {
			apex = append(apex, r)
			continue
		}
		b.add(start, uint32(i+1))
	}
	sort.Sort(byHash{b})
	if b.partial {
		return apex, nil
	}
	// Every name between the origin and a name with data exists (RFC 8020: NXDOMAIN speaks for all below).
	sorted := len(b.items)
	for i, it := range b.items[:sorted] {
		if i == 0 || !b.same(it, b.items[i-1]) {
			b.born(sorted, b.rel(it))
		}
	}
	if len(b.items) > sorted {
		sort.Sort(byHash{b})
	}
	return apex, nil
}

// add adds the item of the name that begins at start and ends the arena.
func (b *builder) add(start int, record uint32) {
	rel := b.arena[start:]
	b.items = append(b.items, item{hash: maphash.Bytes(b.seed, rel), off: uint32(start), record: record, size: uint8(len(rel))})
}

// born counts a name among its parent's children, and makes that exist. The first sorted items are those with data.
func (b *builder) born(sorted int, rel []byte) {
	for rel = rel[1+int(rel[0]):]; len(rel) > 0; rel = rel[1+int(rel[0]):] {
		if n := b.children[string(rel)]; n != nil {
			*n++
			return
		}
		n := uint32(1)
		b.children[string(rel)] = &n
		start := len(b.arena)
		b.arena = append(b.arena, rel...)
		b.add(start, 0)
		gap := b.items[len(b.items)-1]
		if at := sort.Search(sorted, func(i int) bool { return b.compare(b.items[i], gap) >= 0 }); at < sorted && b.same(b.items[at], gap) {
			b.items = b.items[:len(b.items)-1]
			return
		}
	}
}

func (b *builder) compare(x, y item) int {
	return cmp.Or(cmp.Compare(x.hash, y.hash), bytes.Compare(b.rel(x), b.rel(y)))
}

// byHash sorts items. The packages' users are small machines too: sort.Sort is one function for all types.
type byHash struct{ *builder }

func (b byHash) Len() int           { return len(b.items) }
func (b byHash) Less(i, j int) bool { return b.compare(b.items[i], b.items[j]) < 0 }
func (b byHash) Swap(i, j int)      { b.items[i], b.items[j] = b.items[j], b.items[i] }

func (b *builder) same(x, y item) bool { return b.compare(x, y) == 0 }

// emit makes the shards, and the order of a presigned zone.
func (b *builder) emit() error {
	names := 0
	for i := range b.items {
		if i == 0 || !b.same(b.items[i], b.items[i-1]) {
			names++
		}
	}
	b.names = newDirectory(b.seed, names)
	var w shardWriter
	var own []Record
	var keys []string
	current := 0
	for items := b.items; len(items) > 0; {
		it, n := items[0], 1
		for n < len(items) && b.same(items[n], it) {
			n++
		}
		own = own[:0]
		for _, same := range items[:n] {
			if same.record != 0 {
				own = append(own, b.record(int(same.record)-1))
			}
		}
		if i := b.names.index(it.hash); i != current {
			*b.names.at(current) = w.shard()
			w.reset()
			current = i
		}
		if err := b.emitName(&w, it, own); err != nil {
			return err
		}
		if b.mode == Presigned && len(own) > 0 {
			keys = append(keys, string(appendSortKey(nil, b.rel(it))))
		}
		items = items[n:]
	}
	*b.names.at(current) = w.shard()
	slices.Sort(keys)
	b.order = newOrder(keys)
	return nil
}

func (b *builder) emitName(w *shardWriter, it item, records []Record) (err error) {
	rel := b.rel(it)
	var children uint32
	if n := b.children[string(rel)]; n != nil {
		children = *n
	}
	w.begin(it.hash, len(rel))
	w.entries = append(w.entries, rel...)
	if w.entries, err = b.encoder.encode(w.entries, records, children); err != nil {
		return fmt.Errorf("%s: %w", b.text(rel), err)
	}
	return nil
}
