package session

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// TestFurtherAddresses: peers are told all addresses of a machine; those beside the first ask nothing of them.
func TestFurtherAddresses(t *testing.T) {
	l := newLog(t)
	id := l.launch(t, "zk", 1)
	l.launch(t, "zk", 2)
	before := compiled(t, l, id)
	tx := l.store.Begin()
	for _, address := range []string{"2001:db8::5", "fd00::5"} {
		tx.Put(&provisionrv1.AddressClaim{Metadata: named("local/" + address), Network: "local", Address: address, Machine: "m-zk-2"})
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	l.store.Publish()
	after := compiled(t, l, id)
	want := parse(t, `pool: "zk" members { name: "zk-1" fqdn: "zk-1.p.internal" index: 1 address: "10.88.0.2" machine_id: "m-zk-1" }
		members { name: "zk-2" fqdn: "zk-2.p.internal" index: 2 address: "10.88.0.3" machine_id: "m-zk-2"
			further_addresses: "2001:db8::5" further_addresses: "fd00::5" }
		members { name: "zk-3" fqdn: "zk-3.p.internal" index: 3 }`, &agentv1.MemberChunk{})
	if diff := cmp.Diff(want, decode(t, after, "members/zk/0", &agentv1.MemberChunk{}), protocmp.Transform()); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if after.Hash() != before.Hash() || after.revision == before.revision {
		t.Error("the hash of the desired state changes, or nothing is sent")
	}
}
