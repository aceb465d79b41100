package providertest

import (
	"net/netip"
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// address returns an address of the network that this run has not used, and the prefix length.
func (r *run) address(t *testing.T, spec *provisionrv1.NetworkSpec) (string, uint32) {
	t.Helper()
	cidr, err := netip.ParsePrefix(spec.GetCidr())
	if err != nil {
		t.Fatal(err)
	}
	// The first addresses are the network's own and the gateway's.
	a := cidr.Masked().Addr().Next().Next()
	for range r.made {
		a = a.Next()
	}
	if !cidr.Contains(a) {
		t.Fatalf("network %s is too small for the suite", cidr)
	}
	return a.String(), uint32(cidr.Bits())
}
