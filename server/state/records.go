package state

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Records are static records as the store keeps those of a zone: packed, without pointers, because a cluster has many and
// reads few. They never change. A nil Records has none.
type Records struct {
	// wire is a ZoneSpec with nothing but the records, in their order, in wire form.
	wire []byte
	// sorted are the places in wire at which they begin, in order of name.
	sorted []uint32
}

// The fields of messages that are read without decoding them.
const (
	zoneSpecRecords = 3

	recordName, recordAddresses, recordCname = 1, 2, 3
)

// PackRecords packs records. Equal records give equal octets.
func PackRecords(records []*provisionrv1.StaticRecord) (*Records, error) {
	if len(records) == 0 {
		return nil, nil
	}
	wire, err := wireOf(records)
	if err != nil {
		return nil, err
	}
	r := &Records{wire: wire, sorted: make([]uint32, 0, len(records))}
	for place := range r.places() {
		r.sorted = append(r.sorted, place)
	}
	slices.SortFunc(r.sorted, func(a, b uint32) int {
		return cmp.Or(bytes.Compare(r.name(a), r.name(b)), cmp.Compare(a, b))
	})
	return r, nil
}

func wireOf(records []*provisionrv1.StaticRecord) ([]byte, error) {
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(&provisionrv1.ZoneSpec{Records: records})
	if err != nil {
		return nil, fmt.Errorf("cannot pack static records: %w", err)
	}
	return wire, nil
}

// Len is how many there are.
func (r *Records) Len() int {
	if r == nil {
		return 0
	}
	return len(r.sorted)
}

// Size is how many octets they have in wire form.
func (r *Records) Size() int {
	if r == nil {
		return 0
	}
	return len(r.wire)
}

// All yields them in the order in which they were packed, each decoded for the caller.
func (r *Records) All() iter.Seq[*provisionrv1.StaticRecord] {
	return func(yield func(*provisionrv1.StaticRecord) bool) {
		for place := range r.places() {
			if !yield(r.decode(place)) {
				return
			}
		}
	}
}

// Named returns the record of a name, decoded for the caller, or nil.
func (r *Records) Named(name string) *provisionrv1.StaticRecord {
	if place, ok := r.find(name); ok {
		return r.decode(place)
	}
	return nil
}

// Has reports whether there is a record of a name.
func (r *Records) Has(name string) bool {
	_, ok := r.find(name)
	return ok
}

// Same reports whether they were packed from records like these.
func (r *Records) Same(records []*provisionrv1.StaticRecord) bool {
	if r.Len() != len(records) {
		return false
	}
	wire, err := wireOf(records)
	switch {
	case err != nil || len(wire) != r.Size():
		return false
	case r == nil || bytes.Equal(r.wire, wire):
		return true
	}
	// Fields that this version does not know may be in another order, which is no difference.
	i := 0
	for have := range r.All() {
		if !proto.Equal(have, records[i]) {
			return false
		}
		i++
	}
	return true
}

// Changed yields the names whose records are others afterwards, in order.
func (r *Records) Changed(after *Records) iter.Seq[string] {
	return func(yield func(string) bool) {
		if r == after {
			return
		}
		var i, j int
		for i < r.Len() || j < after.Len() {
			var order int
			switch {
			case i == r.Len():
				order = 1
			case j == after.Len():
				order = -1
			default:
				order = bytes.Compare(r.name(r.sorted[i]), after.name(after.sorted[j]))
			}
			switch {
			case order < 0:
				if !yield(string(r.name(r.sorted[i]))) {
					return
				}
				i++
			case order > 0:
				if !yield(string(after.name(after.sorted[j]))) {
					return
				}
				j++
			default:
				if !bytes.Equal(r.record(r.sorted[i]), after.record(after.sorted[j])) && !yield(string(r.name(r.sorted[i]))) {
					return
				}
				i, j = i+1, j+1
			}
		}
	}
}

// Addresses yields the addresses of the records in their order, each with the place of its record for [Records.NameAt].
// Aliases have none.
func (r *Records) Addresses() iter.Seq2[uint32, netip.Addr] {
	return func(yield func(uint32, netip.Addr) bool) {
		for place := range r.places() {
			record := r.record(place)
			if len(field(record, recordCname)) > 0 {
				continue
			}
			for number, text := range fields(record) {
				if number != recordAddresses {
					continue
				}
				// Admission has checked the address.
				if addr, err := netip.ParseAddr(string(text)); err == nil && !yield(place, addr) {
					return
				}
			}
		}
	}
}

// NameAt returns the name of the record at a place.
func (r *Records) NameAt(place uint32) string { return string(r.name(place)) }

// places yields where the records begin.
func (r *Records) places() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for place := 0; r != nil && place < len(r.wire); {
			n := protowire.ConsumeFieldValue(zoneSpecRecords, protowire.BytesType, r.wire[place+1:])
			if n < 0 || !yield(uint32(place)) {
				return
			}
			place += 1 + n
		}
	}
}

// record returns the octets of the record at a place: a tag of one octet, the length and these.
func (r *Records) record(place uint32) []byte {
	record, _ := protowire.ConsumeBytes(r.wire[place+1:])
	return record
}

func (r *Records) name(place uint32) []byte { return field(r.record(place), recordName) }

func (r *Records) decode(place uint32) *provisionrv1.StaticRecord {
	record := &provisionrv1.StaticRecord{}
	// These octets were made by this process, from such a message.
	_ = proto.Unmarshal(r.record(place), record)
	return record
}

// find returns the place of the first record of a name.
func (r *Records) find(name string) (uint32, bool) {
	if r == nil {
		return 0, false
	}
	i, found := slices.BinarySearchFunc(r.sorted, name, func(place uint32, name string) int {
		// Neither conversion copies.
		switch have := r.name(place); {
		case string(have) < name:
			return -1
		case string(have) == name:
			return 0
		}
		return 1
	})
	if !found {
		return 0, false
	}
	return r.sorted[i], true
}

// field returns the octets of the first field of a number, or nil.
func field(message []byte, number protowire.Number) []byte {
	for n, value := range fields(message) {
		if n == number {
			return value
		}
	}
	return nil
}

// fields yields the fields of a message that are octets.
func fields(message []byte) iter.Seq2[protowire.Number, []byte] {
	return func(yield func(protowire.Number, []byte) bool) {
		for len(message) > 0 {
			number, kind, n := protowire.ConsumeTag(message)
			if n < 0 {
				return
			}
			size := protowire.ConsumeFieldValue(number, kind, message[n:])
			if size < 0 {
				return
			}
			if kind == protowire.BytesType {
				if value, _ := protowire.ConsumeBytes(message[n:]); !yield(number, value) {
					return
				}
			}
			message = message[n+size:]
		}
	}
}
