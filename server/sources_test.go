package server

import (
	"net/netip"
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// TestKnownSources: networks of machines and the zones' secondaries are answered without limit, others not.
func TestKnownSources(t *testing.T) {
	store := state.New()
	var known sources
	has := func(addr string) bool { return known.has(netip.MustParseAddr(addr)) }
	if has("10.0.0.1") {
		t.Error("knows somebody before there is anything")
	}
	tx := store.Begin()
	tx.Put(&provisionrv1.Network{Metadata: &provisionrv1.Metadata{Name: "local"}, Spec: &provisionrv1.NetworkSpec{Cidr: "10.0.0.0/24"}})
	tx.Put(&provisionrv1.Zone{Metadata: &provisionrv1.Metadata{Name: "default"}, Spec: &provisionrv1.ZoneSpec{
		Domain: "example.org", Transfer: &provisionrv1.ZoneTransfer{Secondaries: []*provisionrv1.Secondary{
			{Address: "192.0.2.53"}, {Address: "192.0.2.54:5353"}, {Address: "[2001:db8::1]:53"}, {Address: "no address"},
		}},
	}})
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	store.Publish()
	known.known.Store(knownOf(store.Read()))
	for addr, want := range map[string]bool{
		"10.0.0.1": true, "192.0.2.53": true, "192.0.2.54": true, "2001:db8::1": true, "10.0.1.1": false, "192.0.2.55": false, "2001:db8::2": false,
	} {
		if has(addr) != want {
			t.Errorf("%s: %v", addr, !want)
		}
	}
}
