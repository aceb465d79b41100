package api

import (
	"testing"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// TestPlanAfterCompletion plans a network that its provider has completed: what the user wrote is what counts.
func TestPlanAfterCompletion(t *testing.T) {
	mine := &provisionrv1.Network{
		Metadata: &provisionrv1.Metadata{Name: "lan"}, Spec: &provisionrv1.NetworkSpec{Cidr: "10.9.0.0/24", Provider: "local"},
	}
	full := proto.CloneOf(mine)
	full.Written = mine.GetSpec()
	full.Spec = &provisionrv1.NetworkSpec{
		Cidr: "10.9.0.0/24", Provider: "local", Gateway: "10.9.0.1", Managed: true, NtpServers: []string{"10.9.0.1"}, HttpProxy: "http://10.9.0.1:3142",
	}
	own := proto.CloneOf(mine)
	own.Spec.NtpServers = []string{"192.0.2.1"}
	for name, test := range map[string]struct {
		after *provisionrv1.Network
		want  int
	}{"the same": {mine, 0}, "a value of the user's own": {own, 1}} {
		if got := changedFields(object(full), object(test.after)); len(got) != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	claimed := stripped([]*provisionrv1.Object{object(full)})[0].GetNetwork()
	if claimed.GetWritten() != nil {
		t.Error("a request may say what was written before")
	}
}
