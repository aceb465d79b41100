package state

import (
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// ZoneRow is a zone as the store keeps it: the object without its records, and these.
type ZoneRow struct {
	Zone    *provisionrv1.Zone
	Records *Records
}

// GetMetadata returns the zone's.
func (r *ZoneRow) GetMetadata() *provisionrv1.Metadata {
	if r == nil {
		return nil
	}
	return r.Zone.GetMetadata()
}

func packZone(z *provisionrv1.Zone) (*ZoneRow, error) {
	if len(z.GetSpec().GetRecords()) == 0 {
		return &ZoneRow{Zone: z}, nil
	}
	records, err := PackRecords(z.GetSpec().GetRecords())
	if err != nil {
		return nil, err
	}
	return &ZoneRow{Zone: WithoutRecords(z), Records: records}, nil
}

// whole returns the zone with its records.
func (r *ZoneRow) whole() *provisionrv1.Zone {
	if r.Records == nil {
		return r.Zone
	}
	z := WithoutRecords(r.Zone)
	// These octets were made by this process, from such a message.
	_ = proto.UnmarshalOptions{Merge: true}.Unmarshal(r.Records.wire, z.Spec)
	return z
}

// written returns a message that is written as the whole zone is, up to the order of fields: the records, as octets of fields
// that it does not know. Nobody but an encoder may read it.
func (r *ZoneRow) written() *provisionrv1.Zone {
	if r.Records == nil {
		return r.Zone
	}
	z := WithoutRecords(r.Zone)
	spec := z.Spec.ProtoReflect()
	spec.SetUnknown(slices.Concat(spec.GetUnknown(), r.Records.wire))
	return z
}

// WithoutRecords returns a copy of a zone without records, which shares everything else with it but the specification itself.
func WithoutRecords(z *provisionrv1.Zone) *provisionrv1.Zone {
	out := shallow(z)
	if z.GetSpec() != nil {
		out.Spec = shallow(z.Spec)
		out.Spec.Records = nil
	}
	return out
}

// shallow copies the fields of a message, known or not.
func shallow[M proto.Message](m M) M {
	out := m.ProtoReflect().New()
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		out.Set(f, v)
		return true
	})
	out.SetUnknown(m.ProtoReflect().GetUnknown())
	return out.Interface().(M)
}

// Zone returns the zone by its object name, without its records, or nil.
func (s *Snapshot) Zone(name string) *provisionrv1.Zone {
	if row := s.zoneRow(name); row != nil {
		return row.Zone
	}
	return nil
}

// Zones yields all zones by name, without their records.
func (s *Snapshot) Zones() iter.Seq[*provisionrv1.Zone] {
	return s.zonesAs(func(row *ZoneRow) *provisionrv1.Zone { return row.Zone })
}

// Records returns the static records of a zone by its object name; nil where it has none.
func (s *Snapshot) Records(zone string) *Records {
	if row := s.zoneRow(zone); row != nil {
		return row.Records
	}
	return nil
}

// WholeZone returns the zone with its records, which are decoded for the caller, or nil.
func (s *Snapshot) WholeZone(name string) *provisionrv1.Zone {
	if row := s.zoneRow(name); row != nil {
		return row.whole()
	}
	return nil
}

// WholeZones yields all zones by name as [Snapshot.WholeZone] returns them.
func (s *Snapshot) WholeZones() iter.Seq[*provisionrv1.Zone] { return s.zonesAs((*ZoneRow).whole) }

func (s *Snapshot) zonesAs(as func(*ZoneRow) *provisionrv1.Zone) iter.Seq[*provisionrv1.Zone] {
	return func(yield func(*provisionrv1.Zone) bool) {
		for row := range scan[*ZoneRow](s, TableZones, idIndex, nil) {
			if !yield(as(row)) {
				return
			}
		}
	}
}

func (s *Snapshot) zoneRow(name string) *ZoneRow { return get[*ZoneRow](s, TableZones, key(name)) }
