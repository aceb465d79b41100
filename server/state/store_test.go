package state

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

func at(index uint64) *provisionrv1.Version {
	return &provisionrv1.Version{Incarnation: 1, Index: index}
}

// write applies one transaction at an index and publishes it.
func write(t testing.TB, s *Store, index uint64, do func(tx *Tx)) {
	t.Helper()
	tx := s.Begin()
	do(tx)
	tx.SetVersion(at(index))
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	s.Publish()
}

func meta1(name string) *provisionrv1.Metadata { return &provisionrv1.Metadata{Name: name} }

func filled(t testing.TB) *Store {
	t.Helper()
	s := New()
	write(t, s, 1, func(tx *Tx) {
		tx.PutCluster(&provisionrv1.Cluster{Id: "c", Incarnation: 1, DefaultZone: "default"})
		tx.PutSealedKey(&raftlogv1.SealedKey{Version: 1, Wrapped: map[string][]byte{"b": {1}, "a": {2}, "c": {3}}})
		for _, row := range []any{
			&provisionrv1.Zone{Metadata: meta1("default"), Spec: &provisionrv1.ZoneSpec{Domain: "d.test", Records: []*provisionrv1.StaticRecord{{Name: "www"}}}},
			&provisionrv1.Network{Metadata: meta1("local"), Spec: &provisionrv1.NetworkSpec{Provider: "local", Cidr: "10.0.0.0/24"}},
			&provisionrv1.Network{Metadata: meta1("aaa"), Spec: &provisionrv1.NetworkSpec{Provider: "local", Cidr: "10.1.0.0/24"}},
			&provisionrv1.Provider{Metadata: meta1("local")},
			&provisionrv1.User{Metadata: meta1("u")},
			&provisionrv1.Token{Metadata: meta1("t"), User: "u"},
			&provisionrv1.Member{Metadata: meta1("s1")},
			&raftlogv1.Authority{Id: "k"},
			&raftlogv1.JoinToken{Id: "j"},
			&provisionrv1.Pool{
				Metadata: &provisionrv1.Metadata{Name: "a", Labels: map[string]string{"x": "1", "y": "2", "z": "3"}, Generation: 2},
				Spec:     &provisionrv1.PoolSpec{Size: 12, Aliases: []string{"web"}},
			},
			&provisionrv1.Pool{Metadata: meta1("a-b"), Spec: &provisionrv1.PoolSpec{}},
		} {
			tx.Put(row)
		}
		for i := uint32(12); i >= 1; i-- {
			name, id := fmt.Sprintf("a-%d", i), fmt.Sprintf("m-%d", i)
			tx.Put(&provisionrv1.Slot{Metadata: meta1(name), Pool: "a", Index: i, Holder: id, Fqdn: name + ".d.test"})
			tx.Put(&provisionrv1.Machine{Metadata: meta1(id), Spec: &provisionrv1.MachineSpec{Pool: "a", Index: i, Slot: name},
				Status: &provisionrv1.MachineStatus{Phase: provisionrv1.Phase_PHASE_PENDING}})
			tx.Put(&provisionrv1.AddressClaim{Metadata: meta1("local/" + name), Network: "local", Address: fmt.Sprintf("10.0.0.%d", i), Machine: id})
			tx.Put(&provisionrv1.Proof{Machine: id, Assumption: "clock", Observer: "m-1"})
			tx.AddEvent(&provisionrv1.Event{Reason: "X"}, at(1))
			tx.RememberRequest(&raftlogv1.AppliedRequest{Id: "r-" + name, Version: at(uint64(i))})
		}
	})
	return s
}

func collect[T any](seq func(func(T) bool), name func(T) string) []string {
	var out []string
	for row := range seq {
		out = append(out, name(row))
	}
	return out
}

func TestReads(t *testing.T) {
	s := filled(t).Read()
	slots := collect(s.SlotsOf("a"), func(r *provisionrv1.Slot) string { return r.GetMetadata().GetName() })
	if want := []string{"a-1", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7", "a-8", "a-9", "a-10", "a-11", "a-12"}; !slices.Equal(slots, want) {
		t.Errorf("slots of a: %v", slots)
	}
	claims := collect(s.Claims("local"), func(c *provisionrv1.AddressClaim) string { return c.GetAddress() })
	if claims[1] != "10.0.0.2" || claims[11] != "10.0.0.12" || s.LastClaim("local").GetAddress() != "10.0.0.12" {
		t.Errorf("claims are not in the order of addresses: %v", claims)
	}
	if n := len(collect(s.MachinesOf("a-b"), func(m *provisionrv1.Machine) string { return "" })); n != 0 {
		t.Errorf("pool a-b has %d machines of pool a", n)
	}
	for _, name := range []string{"m-10", "a-10", "a-10.d.test"} {
		if got := s.MachineNamed(name).GetMetadata().GetName(); got != "m-10" {
			t.Errorf("machine named %s is %q", name, got)
		}
	}
	for _, name := range []string{"", "a-1", "m-", "a-13", "a-1.d", "d.test"} {
		if got := s.Machine(name); got != nil {
			t.Errorf("machine %q is %v", name, got)
		}
	}
	if s.MachineNamed("a-1.d") != nil || s.MachineNamed("") != nil || s.Pool("nosuch") != nil || s.Claim("local", "10.0.0.99") != nil {
		t.Error("a row was found that does not exist")
	}
	if n := s.NetworkOf(s.Pool("a")); n.GetMetadata().GetName() != "local" {
		t.Errorf("the pool's network is %v", n)
	}
	if s.MachineCount() != 12 {
		t.Errorf("%d machines counted", s.MachineCount())
	}
}

func TestSnapshotsNeverChange(t *testing.T) {
	s := filled(t)
	before := s.Read()
	write(t, s, 2, func(tx *Tx) { tx.Delete(before.Machine("m-1")) })
	if before.Machine("m-1") == nil || s.Read().Machine("m-1") != nil {
		t.Error("a deletion shows in the old snapshot or not in the new one")
	}
	tx := s.Begin()
	tx.Delete(before.Machine("m-2"))
	tx.Abort()
	s.Publish()
	if s.Read().Machine("m-2") == nil || s.Read().MachineCount() != 11 {
		t.Error("an aborted transaction left something")
	}
	tx = s.Begin()
	tx.Put(&provisionrv1.Event{})
	if err := tx.Commit(); err == nil {
		t.Error("a row without a table was accepted")
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestWatch(t *testing.T) {
	s := filled(t)
	pools, either, all := s.Watch(TablePools), s.Watch(TablePools, TableMachines), s.Watch()
	if s.Watch(TablePools) != pools {
		t.Error("two watchers of one table have two channels: they would pile up")
	}
	write(t, s, 2, func(tx *Tx) {
		tx.Put(&provisionrv1.Machine{Metadata: meta1("m-new"), Spec: &provisionrv1.MachineSpec{Pool: "a"}})
	})
	if closed(pools) || !closed(either) || !closed(all) {
		t.Errorf("after a machine: pools %v, pools or machines %v, all %v", closed(pools), closed(either), closed(all))
	}
	all = s.Watch()
	write(t, s, 3, func(*Tx) {})
	if !closed(all) || closed(pools) {
		t.Error("an entry without changes must wake who waits for a version, and nobody else")
	}
	var saved bytes.Buffer
	if err := s.Read().Save(&saved); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(&saved); err != nil {
		t.Fatal(err)
	}
	if !closed(pools) {
		t.Error("a restore wakes nobody")
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := New()
	write(t, s, 1, func(tx *Tx) {
		for i := range MaxEvents + 5 {
			tx.AddEvent(&provisionrv1.Event{Reason: fmt.Sprint(i)}, at(uint64(i/2)))
		}
		for i := range MaxApplied + 5 {
			tx.RememberRequest(&raftlogv1.AppliedRequest{Id: fmt.Sprint("r", i), Version: at(uint64(i))})
		}
	})
	events := collect(s.Read().Events(0), func(e *provisionrv1.Event) string { return e.GetReason() })
	if len(events) != MaxEvents || events[0] != "5" {
		t.Errorf("%d events from %s on", len(events), events[0])
	}
	if s.Read().AppliedRequest("r4") != nil || s.Read().AppliedRequest("r5") == nil {
		t.Error("not the oldest requests were dropped")
	}
	if after := collect(s.Read().Events(MaxEvents/2), func(e *provisionrv1.Event) string { return e.GetReason() }); len(after) != 3 {
		t.Errorf("events after an index: %v", after)
	}
	// The bounds hold after a restore too.
	var saved bytes.Buffer
	if err := s.Read().Save(&saved); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(&saved); err != nil {
		t.Fatal(err)
	}
	write(t, s, MaxEvents, func(tx *Tx) { tx.AddEvent(&provisionrv1.Event{}, at(MaxEvents)) })
	if n := len(collect(s.Read().Events(0), func(*provisionrv1.Event) string { return "" })); n != MaxEvents {
		t.Errorf("%d events after a restore", n)
	}
}

func TestSaveAndRestore(t *testing.T) {
	s := filled(t)
	var saved, again bytes.Buffer
	if err := s.Read().Save(&saved); err != nil {
		t.Fatal(err)
	}
	restored := New()
	if err := restored.Restore(bytes.NewReader(saved.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := restored.Read().Save(&again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(saved.Bytes(), again.Bytes()) {
		t.Error("a restored state is saved otherwise")
	}
	if diff := cmp.Diff(s.Read().Pool("a"), restored.Read().Pool("a"), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if owner := restored.Read().NameOwner("default", "www"); owner == nil || owner.Kind != OwnerZone {
		t.Errorf("the name registry was not rebuilt: %v", owner)
	}
	v, c, err := Verify(bytes.NewReader(saved.Bytes()))
	if err != nil || v.GetIndex() != 1 || c.GetId() != "c" {
		t.Errorf("verify: %v, %v, %v", v, c, err)
	}
}

func TestTornSnapshotsAreRefused(t *testing.T) {
	s := filled(t)
	var saved bytes.Buffer
	if err := s.Read().Save(&saved); err != nil {
		t.Fatal(err)
	}
	whole := saved.Bytes()
	for n := range len(whole) {
		if n > 400 && n < len(whole)-50 && n%37 != 0 {
			continue
		}
		if err := New().Restore(bytes.NewReader(whole[:n])); !errors.Is(err, ErrTorn) {
			t.Fatalf("a snapshot cut at %d of %d bytes: %v", n, len(whole), err)
		}
	}
	if err := New().Restore(bytes.NewReader(append(slices.Clone(whole), 0))); !errors.Is(err, ErrTorn) {
		t.Errorf("a snapshot with a byte behind its end: %v", err)
	}
	before := s.Read()
	if err := s.Restore(bytes.NewReader(whole[:len(whole)/2])); err == nil || s.Read() != before {
		t.Errorf("a torn snapshot changed the state: %v", err)
	}
}

func FuzzRestore(f *testing.F) {
	var saved bytes.Buffer
	if err := filled(f).Read().Save(&saved); err != nil {
		f.Fatal(err)
	}
	f.Add(saved.Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := New()
		if err := s.Restore(bytes.NewReader(data)); err != nil {
			return
		}
		if err := s.Read().Save(&bytes.Buffer{}); err != nil {
			t.Fatalf("what was restored cannot be saved: %v", err)
		}
	})
}

func TestPoolStatus(t *testing.T) {
	phase := func(p provisionrv1.Phase, generation uint64) *provisionrv1.MachineStatus {
		return &provisionrv1.MachineStatus{Phase: p, Reason: "because", Agent: &provisionrv1.AgentStatus{PoolGeneration: generation}}
	}
	ready, gone, failed := provisionrv1.Phase_PHASE_READY, provisionrv1.Phase_PHASE_GONE, provisionrv1.Phase_PHASE_FAILED
	one := uint32(1)
	for name, test := range map[string]struct {
		least    *uint32
		machines []*provisionrv1.MachineStatus
		want     string
		ready    uint32
	}{
		"empty":          {nil, nil, PoolProgressing, 0},
		"ready":          {nil, []*provisionrv1.MachineStatus{phase(ready, 2), phase(ready, 2)}, PoolReady, 2},
		"old generation": {nil, []*provisionrv1.MachineStatus{phase(ready, 1), phase(ready, 2)}, PoolProgressing, 1},
		"failed":         {nil, []*provisionrv1.MachineStatus{phase(failed, 0), phase(ready, 2)}, PoolDegraded, 1},
		"enough":         {&one, []*provisionrv1.MachineStatus{phase(failed, 0), phase(ready, 2)}, PoolReady, 1},
		"gone":           {nil, []*provisionrv1.MachineStatus{phase(gone, 0), phase(ready, 2), phase(ready, 2)}, PoolReady, 2},
	} {
		s := New()
		p := &provisionrv1.Pool{Metadata: &provisionrv1.Metadata{Name: "p", Generation: 2}, Spec: &provisionrv1.PoolSpec{Size: 2, MinSize: test.least}}
		write(t, s, 1, func(tx *Tx) {
			tx.Put(p)
			for i, status := range test.machines {
				tx.Put(&provisionrv1.Machine{Metadata: meta1(fmt.Sprint("m", i)), Spec: &provisionrv1.MachineSpec{Pool: "p", Index: uint32(i)}, Status: status})
			}
		})
		if got := PoolStatus(s.Read(), p); got.GetState() != test.want || got.GetReady() != test.ready {
			t.Errorf("%s: %v, want %s with %d ready", name, got, test.want, test.ready)
		}
	}
}
