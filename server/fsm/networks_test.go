package fsm

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

func written(spec *provisionrv1.NetworkSpec) *provisionrv1.Object {
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: &provisionrv1.Network{
		Metadata: &provisionrv1.Metadata{Name: "lan"}, Spec: spec,
	}}}
}

func completed(n *provisionrv1.Network, spec *provisionrv1.NetworkSpec) *provisionrv1.Object {
	n = proto.CloneOf(n)
	n.Spec = spec
	return &provisionrv1.Object{Kind: &provisionrv1.Object_Network{Network: n}}
}

// TestCompletedNetwork applies a network again after its provider has completed it.
func TestCompletedNetwork(t *testing.T) {
	w := initialised(t)
	lan := func() *provisionrv1.Network { return w.store.Read().Network("lan") }
	is := func(what string, want *provisionrv1.NetworkSpec) {
		t.Helper()
		if !proto.Equal(lan().GetSpec(), want) {
			t.Errorf("%s: %v, want %v", what, lan().GetSpec(), want)
		}
	}
	mine := &provisionrv1.NetworkSpec{Cidr: "10.9.0.0/24", Provider: "local"}
	full := &provisionrv1.NetworkSpec{
		Cidr: "10.9.0.0/24", Provider: "local", Gateway: "10.9.0.1", Managed: true, NtpServers: []string{"10.9.0.1"},
		DnsServers: []string{"192.0.2.53"}, HttpProxy: "http://10.9.0.1:3142",
	}
	w.must(put(written(mine)))
	w.must(put(completed(lan(), full)))
	before := lan()
	w.must(put(written(mine)))
	if !proto.Equal(lan(), before) {
		t.Errorf("the same manifest changed the network to %v", lan())
	}
	is("written again", full)

	own := proto.CloneOf(mine)
	own.NtpServers = []string{"192.0.2.1"}
	w.must(put(written(own)))
	want := proto.CloneOf(full)
	want.NtpServers = own.GetNtpServers()
	is("a value of the user's own", want)
	w.must(put(written(mine)))
	want.NtpServers = nil
	is("the same withdrawn: the provider is to say it", want)
	w.must(put(completed(lan(), full)))

	w.must(put(written(full)))
	if !proto.Equal(lan().GetWritten(), full) {
		t.Errorf("what was completed and then written is remembered as %v", lan().GetWritten())
	}
	w.must(put(written(mine)))
	is("all of it withdrawn", mine)
	w.must(put(completed(lan(), full)))

	moved := proto.CloneOf(mine)
	moved.Gateway = "10.9.0.254"
	w.must(put(written(moved)))
	want = &provisionrv1.NetworkSpec{Cidr: "10.9.0.0/24", Provider: "local", Gateway: "10.9.0.254", Managed: true}
	is("another gateway", want)
}

// TestNetworkOfLevel1 applies networks as a cluster of level 1 always has.
func TestNetworkOfLevel1(t *testing.T) {
	w := newWorld(t)
	c := initCommand()
	c.GetInitCluster().Cluster.FeatureLevel = 1
	w.must(c)
	full := &provisionrv1.NetworkSpec{Cidr: "10.9.0.0/24", Provider: "local", Gateway: "10.9.0.1", HttpProxy: "http://10.9.0.1:3142"}
	w.must(put(written(full)))
	w.refuse(errs.Invalid, put(written(&provisionrv1.NetworkSpec{Provider: "local"})))
	bare := &provisionrv1.NetworkSpec{Cidr: "10.9.0.0/24", Provider: "local"}
	w.must(put(written(bare)))
	if n := w.store.Read().Network("lan"); !proto.Equal(n.GetSpec(), bare) || n.GetWritten() != nil || n.GetMetadata().GetGeneration() != 2 {
		t.Errorf("level 1 made it %v", n)
	}
}

// TestProviderMoves refuses a change by which machines would be looked for where they are not.
func TestProviderMoves(t *testing.T) {
	w := initialised(t)
	at := func(owner string) *raftlogv1.Command {
		return put(&provisionrv1.Object{Kind: &provisionrv1.Object_Provider{Provider: &provisionrv1.Provider{
			Metadata: &provisionrv1.Metadata{Name: "local"},
			Spec:     &provisionrv1.ProviderSpec{Type: &provisionrv1.ProviderSpec_Local{Local: &provisionrv1.LocalProvider{Owner: owner}}},
		}}})
	}
	w.must(put(pool("web", 1)))
	w.must(at("s2"))
	w.must(create("m-1", "web", 1, 1))
	w.refuse(errs.Conflict, at("s1"))
	w.must(at("s2"))
	w.die("m-1", pending)
	w.must(at("s1"))
	sim := func(calls float64) *provisionrv1.Provider {
		return &provisionrv1.Provider{Spec: &provisionrv1.ProviderSpec{CallsPerSecond: calls, Type: &provisionrv1.ProviderSpec_Sim{Sim: &provisionrv1.SimProvider{}}}}
	}
	if got := state.Moved(sim(1), sim(2)); got != "spec.sim" {
		t.Errorf("another simulated cloud has moved %q", got)
	}
}
