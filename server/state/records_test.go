package state

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// drawRecords draws records with names of their own in any order.
func drawRecords(t *rapid.T, label string) []*provisionrv1.StaticRecord {
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
		"@", "a", "a-1", "a.b", "aa", "b", "_ldap._tcp", "www", "z", "a-name-of-more-than-thirty-two-octets.in-two-labels",
	}), 0, 10, rapid.ID[string]).Draw(t, label)
	records := make([]*provisionrv1.StaticRecord, len(names))
	for i, name := range names {
		r := &provisionrv1.StaticRecord{Name: name}
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			r.Cname = rapid.SampledFrom([]string{"a", "other.example."}).Draw(t, "cname")
		case 1:
			r.Text = []string{"text", rapid.StringN(0, 200, 200).Draw(t, "text")}
			r.Services = []*provisionrv1.ServiceRecord{{Port: uint32(rapid.IntRange(1, 65535).Draw(t, "port")), Target: "a"}}
			r.Caa = []string{`0 issue ";"`}
		default:
			r.Addresses = rapid.SliceOfN(rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2", "2001:db8::1", "::ffff:192.0.2.3"}), 0, 3).Draw(t, "addresses")
		}
		records[i] = r
	}
	return records
}

func byNameOf(records []*provisionrv1.StaticRecord) map[string]*provisionrv1.StaticRecord {
	m := map[string]*provisionrv1.StaticRecord{}
	for _, r := range records {
		m[r.GetName()] = r
	}
	return m
}

// TestRecords: packed records answer as a list and a map of them do.
func TestRecords(t *testing.T) {
	pack := func(t *rapid.T, records []*provisionrv1.StaticRecord) *Records {
		r, err := PackRecords(records)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	rapid.Check(t, func(t *rapid.T) {
		before, after := drawRecords(t, "before"), drawRecords(t, "after")
		r, s := pack(t, before), pack(t, after)
		if diff := cmp.Diff(before, slices.AppendSeq([]*provisionrv1.StaticRecord{}, r.All()), protocmp.Transform()); diff != "" || r.Len() != len(before) {
			t.Fatalf("%d records (-packed +all):\n%s", r.Len(), diff)
		}
		old, new := byNameOf(before), byNameOf(after)
		var changed []string
		for name := range maps.Keys(byNameOf(slices.Concat(before, after, []*provisionrv1.StaticRecord{{Name: ""}, {Name: "nosuch"}}))) {
			if !proto.Equal(r.Named(name), old[name]) || r.Has(name) != (old[name] != nil) {
				t.Fatalf("%q is %v, want %v", name, r.Named(name), old[name])
			}
			if !proto.Equal(old[name], new[name]) {
				changed = append(changed, name)
			}
		}
		slices.Sort(changed)
		if got := slices.Collect(r.Changed(s)); !slices.Equal(got, changed) {
			t.Fatalf("changed: %q, want %q", got, changed)
		}
		if same := slices.EqualFunc(before, after, func(b, a *provisionrv1.StaticRecord) bool { return proto.Equal(b, a) }); r.Same(after) != same || !r.Same(before) {
			t.Fatalf("the same: %v, want %v", r.Same(after), same)
		}
		var want, got []string
		for _, record := range before {
			for _, address := range record.GetAddresses() {
				want = append(want, fmt.Sprint(record.GetName(), " ", netip.MustParseAddr(address)))
			}
		}
		for at, addr := range r.Addresses() {
			got = append(got, fmt.Sprint(r.NameAt(at), " ", addr))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("addresses: %q, want %q", got, want)
		}
	})
}

// TestSameIsEqual: records are the same where messages are equal, also in what this version does not know of.
func TestSameIsEqual(t *testing.T) {
	with := func(unknown ...byte) []*provisionrv1.StaticRecord {
		r := &provisionrv1.StaticRecord{Name: "a", Text: []string{"x"}}
		r.ProtoReflect().SetUnknown(unknown)
		return []*provisionrv1.StaticRecord{{Name: "b"}, r}
	}
	// Fields 100 and 101, which are varints, in one order and the other.
	before, turned, other := with(0xa0, 6, 1, 0xa8, 6, 2), with(0xa8, 6, 2, 0xa0, 6, 1), with(0xa0, 6, 1, 0xa8, 6, 3)
	r, err := PackRecords(before)
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		records []*provisionrv1.StaticRecord
		want    bool
	}{{before, true}, {turned, true}, {other, false}, {[]*provisionrv1.StaticRecord{before[1], before[0]}, false}} {
		equal := slices.EqualFunc(before, test.records, func(b, a *provisionrv1.StaticRecord) bool { return proto.Equal(b, a) })
		if same := r.Same(test.records); same != test.want || equal != test.want {
			t.Errorf("%d: the same: %v, equal: %v", i, same, equal)
		}
	}
}

// TestZoneRows: a zone is read, saved and restored as it was put, whatever its records; they do not stay decoded.
func TestZoneRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := &provisionrv1.Zone{
			ApiVersion: "provisionr/v1", Kind: "Zone", Metadata: &provisionrv1.Metadata{Name: "z", Labels: map[string]string{"a": "b"}},
			Spec: &provisionrv1.ZoneSpec{Domain: "z.test", Ttl: 60, Dnssec: "off", Transfer: &provisionrv1.ZoneTransfer{}, Records: drawRecords(t, "records")},
		}
		zone.Spec.ProtoReflect().SetUnknown([]byte{0xa0, 0x06, 0x01})
		s := New()
		tx := s.Begin()
		tx.Put(proto.CloneOf(zone))
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		s.Publish()
		check := func(s *Snapshot) {
			if diff := cmp.Diff(zone, s.WholeZone("z"), protocmp.Transform()); diff != "" {
				t.Fatalf("(-put +whole):\n%s", diff)
			}
			light := WithoutRecords(zone)
			if diff := cmp.Diff(light, s.Zone("z"), protocmp.Transform()); diff != "" || len(light.GetSpec().GetRecords()) > 0 {
				t.Fatalf("(-without records +read):\n%s", diff)
			}
			for _, r := range zone.GetSpec().GetRecords() {
				if n := s.NameOwner("z", r.GetName()); n == nil || *n != (NameOwner{Zone: "z", Name: r.GetName(), Kind: OwnerZone, Owner: "z"}) {
					t.Fatalf("%s is of %v", r.GetName(), n)
				}
			}
			if s.NameOwner("z", "nosuch") != nil || s.NameOwner("y", "a") != nil {
				t.Fatal("a name has an owner that nobody claimed")
			}
		}
		check(s.Read())
		var saved bytes.Buffer
		if err := s.Read().Save(&saved); err != nil {
			t.Fatal(err)
		}
		if err := s.Restore(bytes.NewReader(saved.Bytes())); err != nil {
			t.Fatal(err)
		}
		check(s.Read())
		var again, plain bytes.Buffer
		if err := s.Read().Save(&again); err != nil || !bytes.Equal(saved.Bytes(), again.Bytes()) {
			t.Fatalf("a restored state is saved otherwise: %v", err)
		}
		// As a server writes it that keeps zones whole.
		for _, record := range []*raftlogv1.SnapshotRecord{
			{Row: &raftlogv1.SnapshotRecord_Header{Header: &raftlogv1.SnapshotHeader{Format: snapshotFormat, Version: &provisionrv1.Version{}}}},
			{Row: &raftlogv1.SnapshotRecord_Object{Object: ObjectOf(zone)}}, {Row: &raftlogv1.SnapshotRecord_End{End: 2}},
		} {
			if _, err := protodelim.MarshalTo(&plain, record); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Restore(&plain); err != nil {
			t.Fatal(err)
		}
		check(s.Read())
		tx = s.Begin()
		tx.Delete(tx.Zone("z"))
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		s.Publish()
		if zone, owner := s.Read().Zone("z"), s.Read().NameOwner("z", "a"); zone != nil || owner != nil {
			t.Fatalf("after a deletion: %v, %v", zone, owner)
		}
	})
}

const manyZones, manyRecords = 4, 10000

// many fills a store with zones of many records, one address each.
func many(t testing.TB) *Store {
	s := New()
	for z := range manyZones {
		commitRows(t, s, true, manyIn(z))
	}
	s.Publish()
	return s
}

func manyIn(z int) *provisionrv1.Zone {
	records := make([]*provisionrv1.StaticRecord, manyRecords)
	for i := range records {
		records[i] = &provisionrv1.StaticRecord{Name: fmt.Sprintf("host-%06d", i), Addresses: []string{fmt.Sprintf("10.%d.%d.%d", z, i>>8, i&255)}}
	}
	return &provisionrv1.Zone{Metadata: meta1(fmt.Sprint("z", z)), Spec: &provisionrv1.ZoneSpec{Domain: fmt.Sprintf("z%d.test", z), Records: records}}
}

// TestRecordsAreSmall: a static record takes little more than its octets.
func TestRecordsAreSmall(t *testing.T) {
	const most = 48
	alive := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := alive()
	s := many(t)
	each := float64(alive()-before) / (manyZones * manyRecords)
	if each > most {
		t.Errorf("a static record takes %.1f octets, want at most %d", each, most)
	}
	t.Logf("a static record takes %.1f octets", each)
	runtime.KeepAlive(s)
}

// BenchmarkSnapshot measures saving and restoring a state of many static records.
func BenchmarkSnapshot(b *testing.B) {
	s := many(b)
	var saved bytes.Buffer
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			saved.Reset()
			if err := s.Read().Save(&saved); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("restore", func(b *testing.B) {
		for b.Loop() {
			if err := s.Restore(bytes.NewReader(saved.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
}
