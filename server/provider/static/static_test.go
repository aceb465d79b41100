package static_test

import (
	"iter"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/static"
)

func machine(id, of string, phase provisionrv1.Phase, change func(*provisionrv1.MachineStatus)) *provisionrv1.Machine {
	m := &provisionrv1.Machine{
		Metadata: &provisionrv1.Metadata{Name: id}, Spec: &provisionrv1.MachineSpec{Provider: of},
		Status: &provisionrv1.MachineStatus{Phase: phase, Launch: &provisionrv1.LaunchRequest{MachineId: id}},
	}
	if change != nil {
		change(m.Status)
	}
	return m
}

func newProvider(t *testing.T, machines ...*provisionrv1.Machine) *static.Provider {
	t.Helper()
	p, err := static.New(static.Config{Name: "metal", Machines: func() iter.Seq[*provisionrv1.Machine] { return slices.Values(machines) }})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What exists is what the records say, and only this provider's.
func TestListFollowsTheRecords(t *testing.T) {
	p := newProvider(t,
		machine("m-waits", "metal", provisionrv1.Phase_PHASE_BOOTING, nil),
		machine("m-runs", "metal", provisionrv1.Phase_PHASE_READY, func(s *provisionrv1.MachineStatus) { s.Address, s.SessionSeen = "192.0.2.7", true }),
		machine("m-silent", "metal", provisionrv1.Phase_PHASE_UNREACHABLE, func(s *provisionrv1.MachineStatus) { s.SessionSeen = true }),
		machine("m-pending", "metal", provisionrv1.Phase_PHASE_PENDING, func(s *provisionrv1.MachineStatus) { s.Launch = nil }),
		machine("m-leaving", "metal", provisionrv1.Phase_PHASE_TERMINATING, nil),
		machine("m-gone", "metal", provisionrv1.Phase_PHASE_GONE, nil),
		machine("m-foreign", "local", provisionrv1.Phase_PHASE_READY, nil),
	)
	var got []provider.Instance
	for i, err := range p.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, i)
	}
	want := []provider.Instance{
		{MachineID: "m-waits", ProviderID: "m-waits", State: provider.Starting},
		{MachineID: "m-runs", ProviderID: "m-runs", State: provider.Running, Address: netip.MustParseAddr("192.0.2.7")},
		{MachineID: "m-silent", ProviderID: "m-silent", State: provider.Running},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestLaunch(t *testing.T) {
	p := newProvider(t,
		machine("m-new", "metal", provisionrv1.Phase_PHASE_LAUNCHING, nil),
		machine("m-leaving", "metal", provisionrv1.Phase_PHASE_TERMINATING, nil),
	)
	launch := func(id string) (provider.Instance, error) {
		return p.Launch(t.Context(), provider.LaunchRequest{Request: &provisionrv1.LaunchRequest{MachineId: id}})
	}
	for range 2 {
		i, err := launch("m-new")
		if err != nil || i.State != provider.Starting || i.Address.IsValid() || i.ProviderID != "m-new" {
			t.Errorf("%+v, %v", i, err)
		}
	}
	for id, kind := range map[string]provider.Kind{"m-leaving": provider.Unknown, "m-never": provider.Unknown, "": provider.Invalid} {
		if _, err := launch(id); provider.KindOf(err) != kind {
			t.Errorf("launch of %q: %v", id, err)
		}
	}
}

// Nothing here reaches a machine: terminate of anything is success, and there is no console.
func TestTheRest(t *testing.T) {
	p := newProvider(t)
	if err := p.Terminate(t.Context(), "m-never", ""); err != nil {
		t.Error(err)
	}
	if err := p.Prune(t.Context(), "m-never", "x"); err != nil {
		t.Error(err)
	}
	if _, err := p.Console(t.Context(), "m-1", ""); provider.KindOf(err) != provider.NotFound {
		t.Error(err)
	}
	network := &provisionrv1.Network{Metadata: &provisionrv1.Metadata{Name: "dc"}, Spec: &provisionrv1.NetworkSpec{Cidr: "192.0.2.0/24"}}
	if spec, err := p.EnsureNetwork(t.Context(), network); err != nil || spec.GetCidr() != "192.0.2.0/24" {
		t.Error(spec, err)
	}
	network.Spec.Cidr = ""
	if _, err := p.EnsureNetwork(t.Context(), network); provider.KindOf(err) != provider.Invalid {
		t.Error(err)
	}
	offer, err := p.Resolve(t.Context(), &provisionrv1.Wish{Hardware: &provisionrv1.Hardware{Cpus: 4}})
	if err != nil || len(offer.Choices) != 1 || offer.Choices[0].Cpus != 4 || len(offer.Warnings) != 1 {
		t.Error(offer, err)
	}
	if c := p.Capabilities(); !c.Adopted || c.HostBound || c.ManagedAddresses {
		t.Errorf("%+v", c)
	}
	if _, err := static.New(static.Config{}); err == nil {
		t.Error("made without a configuration")
	}
}
