package state

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// commitRows commits rows, with a change of names or without, and does not publish them.
func commitRows(t testing.TB, s *Store, names bool, rows ...any) {
	t.Helper()
	tx := s.Begin()
	for _, row := range rows {
		tx.Put(row)
	}
	if names {
		tx.PutCluster(&provisionrv1.Cluster{})
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func changesSlot(name, holder string) *provisionrv1.Slot {
	return &provisionrv1.Slot{Metadata: &provisionrv1.Metadata{Name: name}, Holder: holder}
}

func TestChanges(t *testing.T) {
	s := New()
	start := s.Read().Publication()
	first, second := changesSlot("a-1", "m-1"), changesSlot("a-1", "m-2")
	machine := &provisionrv1.Machine{Metadata: &provisionrv1.Metadata{Name: "m-1"}}
	claim := &provisionrv1.AddressClaim{Network: "n", Address: "10.0.0.1"}
	commitRows(t, s, true, first, machine)
	commitRows(t, s, false, &provisionrv1.Pool{Metadata: &provisionrv1.Metadata{Name: "quiet"}})
	if rows, ok := s.Changes(start, s.Read()); !ok || len(rows) != 0 {
		t.Errorf("before they are published: %v, %v", rows, ok)
	}
	s.Publish()
	middle := s.Read()
	commitRows(t, s, true, second, machine, claim, &provisionrv1.User{Metadata: &provisionrv1.Metadata{Name: "u"}})
	s.Publish()

	earlier := []Row{{Table: TableSlots, Name: "a-1"}, {Table: TableMachines, Name: "m-1"}}
	later := []Row{{Table: TableSlots, Name: "a-1", Before: first}, {Table: TableMachines, Name: "m-1"}, {Table: TableClaims, Name: "n/10.0.0.1"}}
	for _, tt := range []struct {
		after uint64
		until *Snapshot
		want  []Row
	}{
		{start, s.Read(), slices.Concat(earlier, later)}, {start, middle, earlier}, {middle.Publication(), s.Read(), later},
		{middle.Publication(), middle, nil},
	} {
		got, ok := s.Changes(tt.after, tt.until)
		if diff := cmp.Diff(tt.want, got, protocmp.Transform()); !ok || diff != "" && len(tt.want)+len(got) > 0 {
			t.Errorf("after %d: %v (-want +got):\n%s", tt.after, ok, diff)
		}
	}
	if _, ok := s.Changes(s.Read().Publication(), middle); ok {
		t.Error("the future is known")
	}

	// A restore is told as what nothing is known of; from there on all is.
	var saved bytes.Buffer
	if err := s.Read().Save(&saved); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(&saved); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Changes(middle.Publication(), s.Read()); ok {
		t.Error("what a restore changed is known")
	}
	restored := s.Read().Publication()
	commitRows(t, s, true, first)
	s.Publish()
	if rows, ok := s.Changes(restored, s.Read()); !ok || len(rows) != 1 {
		t.Errorf("after a restore: %v, %v", rows, ok)
	}
}

// TestChangesAreBounded: the newest publications are known, the oldest are not, and none is known in part.
func TestChangesAreBounded(t *testing.T) {
	s := New()
	size := func(publication int) int { return publication % 97 }
	const publications = 3 * MaxChanges / 48
	for i := 1; i <= publications; i++ {
		for n := range size(i) {
			commitRows(t, s, true, changesSlot(fmt.Sprintf("s-%d", n), fmt.Sprint(i)))
		}
		s.Publish()
		if len(s.names.rows) > MaxChanges {
			t.Fatalf("%d rows are remembered", len(s.names.rows))
		}
	}
	known := 0
	for after := publications - 1; after >= 0; after-- {
		rows, ok := s.Changes(uint64(after), s.Read())
		if !ok {
			break
		}
		if known += size(after + 1); len(rows) != known {
			t.Fatalf("after %d: %d rows, want %d", after, len(rows), known)
		}
	}
	if known < MaxChanges/2 || known > MaxChanges {
		t.Errorf("%d rows are known", known)
	}
	before := s.Read().Publication()
	tx := s.Begin()
	for n := range MaxChanges + 1 {
		tx.Put(changesSlot(fmt.Sprintf("s-%d", n), "x"))
	}
	tx.PutCluster(&provisionrv1.Cluster{})
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	s.Publish()
	if _, ok := s.Changes(before, s.Read()); ok || len(s.names.rows) != 0 {
		t.Errorf("a change of too many rows is known: %d", len(s.names.rows))
	}
}

// TestChangesAreBoundedByOctets: what zones and pools were before is kept up to a size, publications whole.
func TestChangesAreBoundedByOctets(t *testing.T) {
	s := New()
	change := func(i int) {
		commitRows(t, s, true, changesSlot("s", fmt.Sprint(i)),
			&provisionrv1.Zone{Metadata: &provisionrv1.Metadata{Name: "z"}, Spec: &provisionrv1.ZoneSpec{Domain: strings.Repeat("x", 1<<20)}})
	}
	for i := range 10 {
		change(i)
		s.Publish()
		if s.names.size != sum(s.names.sizes) || s.names.size > MaxChangeSize || len(s.names.rows) != len(s.names.sizes) {
			t.Fatalf("%d octets are remembered, rows of %v", s.names.size, s.names.sizes)
		}
	}
	last := s.Read().Publication()
	for before, known := range []bool{true, true, true, true, false} {
		if rows, ok := s.Changes(last-uint64(before), s.Read()); ok != known || ok && len(rows) != 2*before {
			t.Errorf("after %d publications before: %d rows, %v", before, len(rows), ok)
		}
	}
	for i := range 6 {
		change(i)
	}
	s.Publish()
	if _, ok := s.Changes(last, s.Read()); ok || s.names.size != 0 {
		t.Errorf("a change of too many octets is known: %d", s.names.size)
	}
}
