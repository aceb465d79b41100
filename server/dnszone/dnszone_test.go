package dnszone_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/dnsserver/zone"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

func meta(name string) *provisionrv1.Metadata {
	return &provisionrv1.Metadata{Name: name, Version: &provisionrv1.Version{Incarnation: 1, Index: 1}}
}

// put commits rows and publishes them.
func put(t *testing.T, store *state.Store, zoneIndex uint64, rows ...any) {
	t.Helper()
	tx := store.Begin()
	tx.PutCluster(&provisionrv1.Cluster{Id: "c", Name: "c", SerialBase: 1<<32 - 1, ZoneIndex: zoneIndex, DefaultZone: "default", FeatureLevel: state.LevelNames})
	for _, row := range rows {
		tx.Put(row)
	}
	// As the log's applier registers them.
	for pool := range tx.Pools() {
		for n := range tx.PoolNames(pool) {
			tx.ClaimName(n)
		}
		for slot := range tx.SlotsOf(pool.GetMetadata().GetName()) {
			tx.ClaimName(tx.SlotName(pool, slot.GetMetadata().GetName()))
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	store.Publish()
}

// machine returns a machine with its slot and claim.
func machine(pool string, index uint32, address string, phase provisionrv1.Phase) []any {
	slot := fmt.Sprintf("%s-%d", pool, index)
	id := "m-" + slot
	return []any{
		&provisionrv1.Machine{Metadata: meta(id), Spec: &provisionrv1.MachineSpec{Pool: pool, Slot: slot, Index: index, Network: "local"},
			Status: &provisionrv1.MachineStatus{Phase: phase, Address: address}},
		&provisionrv1.Slot{Metadata: meta(slot), Pool: pool, Index: index, Holder: id, Fqdn: slot + ".p.internal"},
		&provisionrv1.AddressClaim{Metadata: meta("local/" + address), Network: "local", Address: address, Machine: id},
	}
}

func cluster(t *testing.T) *state.Store {
	store := state.New()
	rows := []any{
		&provisionrv1.Zone{Metadata: meta("default"), Spec: &provisionrv1.ZoneSpec{Domain: "p.internal", Records: []*provisionrv1.StaticRecord{
			{Name: "gw", Addresses: []string{"10.88.0.1", "192.0.2.1"}},
			{Name: "twin", Addresses: []string{"10.88.0.2"}},
		}}},
		&provisionrv1.Network{Metadata: meta("local"), Spec: &provisionrv1.NetworkSpec{Cidr: "10.88.0.0/23", Provider: "local"}},
		&provisionrv1.Member{Metadata: meta("s1"), DnsAddress: "0.0.0.0:53", NetworkHosts: map[string]string{"local": "10.88.0.1"}},
		&provisionrv1.Member{Metadata: meta("s2"), DnsAddress: "10.9.9.2:53"},
		&provisionrv1.Pool{Metadata: meta("zk"), Spec: &provisionrv1.PoolSpec{Size: 4, Aliases: []string{"quorum"}}},
		&provisionrv1.Slot{Metadata: meta("zk-4"), Pool: "zk", Index: 4, Fqdn: "zk-4.p.internal"},
	}
	rows = append(rows, machine("zk", 1, "10.88.0.2", provisionrv1.Phase_PHASE_READY)...)
	rows = append(rows, machine("zk", 2, "10.88.1.3", provisionrv1.Phase_PHASE_BOOTING)...)
	rows = append(rows, machine("zk", 3, "10.88.0.4", provisionrv1.Phase_PHASE_READY)...)
	put(t, store, 9, rows...)
	return store
}

func TestRecords(t *testing.T) {
	var got []string
	for _, r := range dnszone.Records(cluster(t).Read()) {
		got = append(got, fmt.Sprintf("%s | %s %d %s %s", r.Zone, r.Name, r.Ttl, r.Type, r.Data))
	}
	want := []string{
		"0.88.10.in-addr.arpa | 0.88.10.in-addr.arpa. 30 NS ns-s1.p.internal.",
		"0.88.10.in-addr.arpa | 0.88.10.in-addr.arpa. 30 NS ns-s2.p.internal.",
		"0.88.10.in-addr.arpa | 0.88.10.in-addr.arpa. 30 SOA ns-s1.p.internal. hostmaster.0.88.10.in-addr.arpa. 8 60 10 604800 10",
		"0.88.10.in-addr.arpa | 1.0.88.10.in-addr.arpa. 30 PTR gw.p.internal.",
		"0.88.10.in-addr.arpa | 2.0.88.10.in-addr.arpa. 30 PTR zk-1.p.internal.",
		"0.88.10.in-addr.arpa | 4.0.88.10.in-addr.arpa. 30 PTR zk-3.p.internal.",
		"1.88.10.in-addr.arpa | 1.88.10.in-addr.arpa. 30 NS ns-s1.p.internal.",
		"1.88.10.in-addr.arpa | 1.88.10.in-addr.arpa. 30 NS ns-s2.p.internal.",
		"1.88.10.in-addr.arpa | 1.88.10.in-addr.arpa. 30 SOA ns-s1.p.internal. hostmaster.1.88.10.in-addr.arpa. 8 60 10 604800 10",
		"1.88.10.in-addr.arpa | 3.1.88.10.in-addr.arpa. 30 PTR zk-2.p.internal.",
		"p.internal | gw.p.internal. 30 A 10.88.0.1",
		"p.internal | gw.p.internal. 30 A 192.0.2.1",
		"p.internal | ns-s1.p.internal. 30 A 10.88.0.1",
		"p.internal | ns-s2.p.internal. 30 A 10.9.9.2",
		`p.internal | p.internal. 30 CAA 0 issue ";"`,
		"p.internal | p.internal. 30 NS ns-s1.p.internal.",
		"p.internal | p.internal. 30 NS ns-s2.p.internal.",
		"p.internal | p.internal. 30 SOA ns-s1.p.internal. hostmaster.p.internal. 8 60 10 604800 10",
		"p.internal | quorum.p.internal. 30 A 10.88.0.2",
		"p.internal | quorum.p.internal. 30 A 10.88.0.4",
		"p.internal | twin.p.internal. 30 A 10.88.0.2",
		"p.internal | zk-1.p.internal. 30 A 10.88.0.2",
		`p.internal | zk-1.p.internal. 30 TXT "pool=zk"`,
		"p.internal | zk-2.p.internal. 30 A 10.88.1.3",
		`p.internal | zk-2.p.internal. 30 TXT "pool=zk"`,
		"p.internal | zk-3.p.internal. 30 A 10.88.0.4",
		`p.internal | zk-3.p.internal. 30 TXT "pool=zk"`,
		"p.internal | zk.p.internal. 30 A 10.88.0.2",
		"p.internal | zk.p.internal. 30 A 10.88.0.4",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBuild(t *testing.T) {
	zones, err := dnszone.Build(cluster(t).Read(), dnszone.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range zones {
		if z.Serial() != 8 {
			t.Errorf("%s: serial %d, want base and index added modulo 2^32", z.Origin(), z.Serial())
		}
	}
	if len(zones) != 3 {
		t.Errorf("%d zones", len(zones))
	}
	if zones, err := dnszone.Build(state.New().Read(), dnszone.Config{}); err != nil || zones != nil {
		t.Errorf("before the cluster exists: %v %v", zones, err)
	}
}

func TestMemberHosts(t *testing.T) {
	tests := []struct {
		member *provisionrv1.Member
		want   string
	}{
		{&provisionrv1.Member{DnsAddress: "10.0.0.1:53", AgentAddress: "10.0.0.2:7444"}, "[10.0.0.1]"},
		{&provisionrv1.Member{DnsAddress: "[::]:53", AgentAddress: "10.0.0.2:7444"}, "[10.0.0.2]"},
		{&provisionrv1.Member{DnsAddress: "host:53"}, "[]"},
		{&provisionrv1.Member{DnsAddress: "10.0.0.1:53", NetworkHosts: map[string]string{"a": "10.1.0.1", "b": "10.2.0.1", "c": "10.1.0.1"}}, "[10.1.0.1 10.2.0.1]"},
	}
	for _, tt := range tests {
		if got := fmt.Sprint(dnszone.MemberHosts(tt.member)); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.member, got, tt.want)
		}
	}
}

// sets records what is published.
type sets chan []*zone.Zone

func (s sets) Set(zones []*zone.Zone) error { s <- zones; return nil }

func TestPublisher(t *testing.T) {
	store, published := cluster(t), make(sets, 10)
	p, err := dnszone.NewPublisher(dnszone.PublisherConfig{State: store, Answers: published, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	next := func() []*zone.Zone {
		t.Helper()
		select {
		case zones := <-published:
			return zones
		case <-time.After(5 * time.Second):
			t.Fatal("nothing published")
			return nil
		}
	}
	next()
	put(t, store, 9) // The same names: nothing to do.
	put(t, store, 10, machine("zk", 4, "10.88.0.9", provisionrv1.Phase_PHASE_BOOTING)...)
	if got := next()[0].Serial(); got != 9 {
		t.Errorf("serial %d, want 9", got)
	}
	put(t, store, 10, &provisionrv1.Network{Metadata: meta("six"), Spec: &provisionrv1.NetworkSpec{Cidr: "fd00::/64"}})
	if got := len(next()); got != 4 {
		t.Errorf("%d zones, want 4", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func BenchmarkBuild(b *testing.B) {
	store := state.New()
	tx := store.Begin()
	tx.PutCluster(&provisionrv1.Cluster{DefaultZone: "default"})
	tx.Put(&provisionrv1.Zone{Metadata: meta("default"), Spec: &provisionrv1.ZoneSpec{Domain: "p.internal"}})
	tx.Put(&provisionrv1.Network{Metadata: meta("local"), Spec: &provisionrv1.NetworkSpec{Cidr: "10.0.0.0/8"}})
	tx.Put(&provisionrv1.Pool{Metadata: meta("p"), Spec: &provisionrv1.PoolSpec{Size: 10000}})
	for i := range uint32(10000) {
		for _, row := range machine("p", i+1, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String(), provisionrv1.Phase_PHASE_READY) {
			tx.Put(row)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	store.Publish()
	for b.Loop() {
		if _, err := dnszone.Build(store.Read(), dnszone.Config{}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSecondAddress has a machine with an IPv6 address beside: both have the name, and each points back. An heir has none.
func TestSecondAddress(t *testing.T) {
	store := cluster(t)
	claim := func(address, id string) *provisionrv1.AddressClaim {
		return &provisionrv1.AddressClaim{Metadata: meta("local/" + address), Network: "local", Address: address, Machine: id}
	}
	put(t, store, 10, claim("2001:db8:0:1::5", "m-zk-1"), claim("10.88.0.9", "m-heir"),
		&provisionrv1.Machine{Metadata: meta("m-heir"), Spec: &provisionrv1.MachineSpec{Pool: "zk", Slot: "zk-1", Index: 1, Network: "local"},
			Status: &provisionrv1.MachineStatus{Phase: provisionrv1.Phase_PHASE_CONVERGING, Address: "10.88.0.9"}},
		&provisionrv1.Slot{Metadata: meta("zk-1"), Pool: "zk", Index: 1, Holder: "m-zk-1", Heir: "m-heir", Fqdn: "zk-1.p.internal"},
		&provisionrv1.Network{Metadata: meta("unknown"), Spec: &provisionrv1.NetworkSpec{Provider: "far"}})
	var got []string
	for _, r := range dnszone.Records(store.Read()) {
		if r.Name == "zk-1.p.internal." || r.Data == "zk-1.p.internal." || r.Data == "10.88.0.9" {
			got = append(got, r.Name+" "+r.Type+" "+r.Data)
		}
	}
	want := []string{
		"2.0.88.10.in-addr.arpa. PTR zk-1.p.internal.",
		"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR zk-1.p.internal.",
		"zk-1.p.internal. A 10.88.0.2",
		"zk-1.p.internal. AAAA 2001:db8:0:1::5",
		`zk-1.p.internal. TXT "pool=zk"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	zones, err := dnszone.Build(store.Read(), dnszone.Config{})
	if err != nil || len(zones) != len(dnszone.Origins(store.Read())) {
		t.Errorf("%d zones, %d origins, %v", len(zones), len(dnszone.Origins(store.Read())), err)
	}
}
