package session

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// TestReadinessIsNotConvergedTo: that a machine becomes ready is told to its peers, and asks nothing of them.
func TestReadinessIsNotConvergedTo(t *testing.T) {
	m := start(t, nil)
	peer := m.log.launch(t, "zk", 2)
	a := m.join(t, m.log.launch(t, "zk", 1))
	a.mustConnect(m)
	first := a.hearDesired()
	before := DesiredHash(m.log.store.Read(), a.id)
	m.log.phase(t, peer, provisionrv1.Phase_PHASE_READY)
	if after := DesiredHash(m.log.store.Read(), a.id); after != before {
		t.Error("a peer that becomes ready changes the hash of the desired state")
	}
	second := a.hearDesired()
	if diff := cmp.Diff(first.GetHash(), second.GetHash()); diff != "" {
		t.Errorf("the hash that was sent (-before +after):\n%s", diff)
	}
	c, err := Compile(m.log.store.Read(), a.id)
	if err != nil {
		t.Fatal(err)
	}
	want := parse(t, `pool: "zk" members { index: 2 }`, &agentv1.MemberChunk{})
	if diff := cmp.Diff(want, decode(t, c, "ready/zk/0", &agentv1.MemberChunk{}), protocmp.Transform()); diff != "" {
		t.Errorf("ready (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(c.Desired, second, protocmp.Transform()); diff != "" {
		t.Errorf("desired state sent (-compiled +sent):\n%s", diff)
	}
}
