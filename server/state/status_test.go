package state

import (
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func TestOutdated(t *testing.T) {
	for name, test := range map[string]struct {
		pool    *provisionrv1.PoolSpec
		machine *provisionrv1.MachineSpec
		want    string
	}{
		"same":               {&provisionrv1.PoolSpec{}, &provisionrv1.MachineSpec{}, ""},
		"empty is none":      {&provisionrv1.PoolSpec{Hardware: &provisionrv1.Hardware{}, Image: &provisionrv1.Image{}}, &provisionrv1.MachineSpec{Placement: &provisionrv1.Placement{}}, ""},
		"amd64 is the rule":  {&provisionrv1.PoolSpec{Hardware: &provisionrv1.Hardware{Architecture: "amd64"}}, &provisionrv1.MachineSpec{}, ""},
		"arm64":              {&provisionrv1.PoolSpec{Hardware: &provisionrv1.Hardware{Architecture: "arm64"}}, &provisionrv1.MachineSpec{}, "the pool has other hardware"},
		"types":              {&provisionrv1.PoolSpec{Hardware: &provisionrv1.Hardware{Types: []string{"a"}}}, &provisionrv1.MachineSpec{Hardware: &provisionrv1.Hardware{Types: []string{"b"}}}, "the pool has other hardware"},
		"disks":              {&provisionrv1.PoolSpec{Hardware: &provisionrv1.Hardware{Disks: []*provisionrv1.Disk{{SizeGib: 1}}}}, &provisionrv1.MachineSpec{}, "the pool has other hardware"},
		"image":              {&provisionrv1.PoolSpec{Image: &provisionrv1.Image{Id: "x"}}, &provisionrv1.MachineSpec{}, "the pool has another image"},
		"placement":          {&provisionrv1.PoolSpec{}, &provisionrv1.MachineSpec{Placement: &provisionrv1.Placement{Ipv6: true}}, "the pool has another placement"},
		"spot asked for":     {&provisionrv1.PoolSpec{Spot: &provisionrv1.Spot{}}, &provisionrv1.MachineSpec{}, "the pool has other wishes for spot capacity"},
		"spot with fallback": {&provisionrv1.PoolSpec{Spot: &provisionrv1.Spot{Fallback: true}}, &provisionrv1.MachineSpec{Spot: &provisionrv1.Spot{}}, "the pool has other wishes for spot capacity"},
		"operating system":   {&provisionrv1.PoolSpec{Os: &provisionrv1.OperatingSystem{Release: "13"}}, &provisionrv1.MachineSpec{}, "the pool has another operating system"},
	} {
		t.Run(name, func(t *testing.T) {
			test.machine.Provider = DefaultProvider
			if got := Outdated(&provisionrv1.Pool{Spec: test.pool}, &provisionrv1.Machine{Spec: test.machine}); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// TestPoolStatusWithHeirs counts heirs as machines, and for nothing else.
func TestPoolStatusWithHeirs(t *testing.T) {
	store := New()
	pool := &provisionrv1.Pool{Metadata: meta1("web"), Spec: &provisionrv1.PoolSpec{Size: 1}}
	write(t, store, 1, func(tx *Tx) {
		tx.Put(pool)
		tx.Put(&provisionrv1.Slot{Metadata: meta1("web-1"), Pool: "web", Index: 1, Holder: "m-1", Heir: "m-2"})
		for id, phase := range map[string]provisionrv1.Phase{"m-1": provisionrv1.Phase_PHASE_READY, "m-2": provisionrv1.Phase_PHASE_FAILED} {
			tx.Put(&provisionrv1.Machine{Metadata: meta1(id), Spec: &provisionrv1.MachineSpec{Pool: "web", Slot: "web-1", Index: 1},
				Status: &provisionrv1.MachineStatus{Phase: phase, Agent: &provisionrv1.AgentStatus{}}})
		}
	})
	store.Publish()
	status := PoolStatus(store.Read(), pool)
	if status.GetReady() != 1 || status.GetMachines() != 2 || status.GetState() != PoolReady || status.GetMessage() != "machines prepared to take over: 1" {
		t.Errorf("status %v", status)
	}
	write(t, store, 2, func(tx *Tx) {
		tx.Put(&provisionrv1.Machine{Metadata: meta1("m-2"), Spec: &provisionrv1.MachineSpec{Pool: "web", Slot: "web-1", Index: 1},
			Status: &provisionrv1.MachineStatus{Phase: provisionrv1.Phase_PHASE_PENDING, Reason: Waiting + "quota"}})
	})
	store.Publish()
	if got, want := PoolStatus(store.Read(), pool).GetMessage(), "machines prepared to take over: 1; web-1 is waiting: quota"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
