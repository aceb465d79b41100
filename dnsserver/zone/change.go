package zone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Change is all records that one name has from now on; without records the name goes. The origin keeps its SOA and NS
// beside them.
type Change struct {
	Name    string
	Records []Record
}

// With returns the zone with other records under a new serial; the zone itself stays as it is. The cost is that of the
// changes. Of several changes of one name the last holds. Besides what [Build] refuses, it refuses records of another name
// than the change's.
func (z *Zone) With(serial uint32, changes []Change) (*Zone, error) {
	next := *z
	c := changer{Zone: &next, old: z, encoder: encoder{ttl: z.ttl}, pending: make(map[string]node, len(changes))}
	if err := c.change(serial, changes); err != nil {
		return nil, fmt.Errorf("cannot change zone %s: %w", z.Origin(), err)
	}
	return &next, nil
}

// changer makes a zone of another.
type changer struct {
	*Zone
	old     *Zone
	encoder encoder
	buf     []byte
	// pending is what names have from now on; the empty node says that they are gone.
	pending map[string]node
	count   int
}

func (c *changer) change(serial uint32, changes []Change) error {
	c.serial = serial
	c.soa = bytes.Clone(c.soa)
	binary.BigEndian.PutUint32(c.soa[len(c.soa)-20:], serial)
	c.count = c.names.count
	var apex []Record
	c.apex.all(c.Origin(), func(r Record) bool {
		if r.Type != TypeSOA && (r.Type != TypeNS || c.partial) {
			apex = append(apex, r)
		}
		return true
	})
	for _, change := range changes {
		rel, records, err := c.check(change)
		switch {
		case err != nil:
			return err
		case rel == "":
			apex = records
		default:
			if err := c.set(rel, records); err != nil {
				return err
			}
		}
	}
	if err := c.setApex(&c.encoder, apex); err != nil {
		return err
	}
	c.commit()
	return nil
}

// check returns what a change's name has before the origin, and its records.
func (c *changer) check(change Change) (rel string, records []Record, err error) {
	wire, err := c.appendRelativeName(c.buf[:0], change.Name)
	if err != nil {
		return "", nil, err
	}
	rel = string(wire)
	for _, r := range change.Records {
		if wire, err = c.appendRelative(wire[:0], r); err != nil {
			return "", nil, err
		}
		if string(wire) != rel {
			return "", nil, fmt.Errorf("record %q: not of the name %q", r.Name, change.Name)
		}
	}
	c.buf = wire
	return rel, slices.Clone(change.Records), nil
}

// set has a name have the records.
func (c *changer) set(rel string, records []Record) (err error) {
	old := c.get(rel)
	var children uint32
	if old != "" {
		children = old.children()
	}
	var next node
	if len(records) > 0 || children > 0 {
		if c.buf, err = c.encoder.encode(c.buf[:0], records, children); err != nil {
			return fmt.Errorf("%s: %w", c.text([]byte(rel)), err)
		}
		next = node(c.buf)
	}
	c.put(rel, old, next)
	return nil
}

func (c *changer) get(rel string) node {
	n, ok := c.pending[rel]
	if !ok {
		n, _ = c.old.names.find([]byte(rel))
	}
	return n
}

// put replaces a node, and counts the name among its parent's children, which may make that exist or go.
func (c *changer) put(rel string, old, next node) {
	for {
		c.pending[rel] = next
		change := 0
		switch {
		case old == "" && next != "":
			change = 1
		case old != "" && next == "":
			change = -1
		}
		c.count += change
		if rel = rel[1+int(rel[0]):]; change == 0 || rel == "" || c.partial {
			return
		}
		old = c.get(rel)
		if next = old; old == "" {
			next = node([]byte{0, 0})
		}
		if next = next.withChildren(uint32(int(next.children()) + change)); next.empty() && next.children() == 0 {
			next = ""
		}
	}
}

// commit makes the new directory and order.
func (c *changer) commit() {
	changed := make(edits, 0, len(c.pending))
	var added, gone []string
	for rel, n := range c.pending {
		changed = append(changed, edit{hash: c.names.hash(rel), rel: rel, node: n})
		if c.mode != Presigned {
			continue
		}
		old, _ := c.old.names.find([]byte(rel))
		before, after := old != "" && !old.empty(), n != "" && !n.empty()
		if before == after {
			continue
		}
		if key := string(appendSortKey(nil, []byte(rel))); after {
			added = append(added, key)
		} else {
			gone = append(gone, key)
		}
	}
	sort.Sort(changed)
	c.names = c.old.names.with(changed, c.count)
	if len(added)+len(gone) > 0 {
		slices.Sort(added)
		slices.Sort(gone)
		c.order = c.old.order.with(added, gone)
	}
}

// setApex makes what the origin has, and the records that the answers of all names share.
func (z *Zone) setApex(e *encoder, records []Record) error {
	negative := []Record{{Type: TypeSOA, TTL: min(z.ttl, binary.BigEndian.Uint32(z.soa[len(z.soa)-4:])), Data: z.soa}}
	for _, r := range records {
		if r.Type == TypeRRSIG && covered(r) == TypeSOA {
			negative = append(negative, r)
		}
	}
	if !z.partial {
		records = slices.Concat(records, z.ns, []Record{{Type: TypeSOA, Data: z.soa}})
	}
	wire, err := e.encode(nil, records, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", z.Origin(), err)
	}
	z.apex = node(wire)
	if wire, err = e.encode(wire[:0], negative, 0); err != nil {
		return fmt.Errorf("%s: %w", z.Origin(), err)
	}
	z.negative = node(wire).find(TypeSOA)
	if wire, err = e.encode(wire[:0], []Record{{Type: TypeHINFO, Data: []byte("\x07RFC8482\x00")}}, 0); err != nil {
		return err
	}
	z.hinfo = node(wire).find(TypeHINFO)
	return nil
}

// appendRelative checks a record by itself and appends what its name has before the origin.
func (z *Zone) appendRelative(dst []byte, r Record) ([]byte, error) {
	dst, err := z.appendRelativeName(dst, r.Name)
	if err != nil {
		return nil, err
	}
	if err = r.check(); err == nil && r.Type == TypeNS {
		err = errors.New("delegations are not served")
	}
	if err != nil {
		return nil, fmt.Errorf("record %q: %w", r.Name, err)
	}
	return dst, nil
}

func (z *Zone) appendRelativeName(dst []byte, name string) ([]byte, error) {
	start := len(dst)
	dst, err := AppendName(dst, name)
	switch {
	case err != nil:
		return nil, err
	case !within(dst[start:], z.origin):
		return nil, fmt.Errorf("name %q: not within the zone", name)
	case isWildcard(name):
		return nil, fmt.Errorf("name %q: wildcards are not served", name)
	}
	return dst[:len(dst)-len(z.origin)], nil
}

// text returns the presentation form of a name, of which rel stands before the origin.
func (z *Zone) text(rel []byte) string { return textOf(slices.Concat(rel, z.origin)) }
