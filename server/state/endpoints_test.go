package state_test

import (
	"slices"
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

func TestEndpoints(t *testing.T) {
	store := state.New()
	tx := store.Begin()
	tx.Put(&provisionrv1.Member{
		Metadata: &provisionrv1.Metadata{Name: "s1"}, ApiAddress: "192.0.2.1:7443", AgentAddress: "192.0.2.1:7444",
		NetworkHosts: map[string]string{"local": "10.88.0.1"},
	})
	tx.Put(&provisionrv1.Member{Metadata: &provisionrv1.Metadata{Name: "s2"}, ApiAddress: "[2001:db8::1]:7443", AgentAddress: "bad"})
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	store.Publish()
	api, agents := store.Read().Endpoints("local")
	if !slices.Equal(api, []string{"10.88.0.1:7443", "[2001:db8::1]:7443"}) || !slices.Equal(agents, []string{"10.88.0.1:7444"}) {
		t.Errorf("in the network: %v, %v", api, agents)
	}
	if api, _ := store.Read().Endpoints(""); api[0] != "192.0.2.1:7443" {
		t.Errorf("from anywhere: %v", api)
	}
}
