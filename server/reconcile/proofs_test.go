package reconcile

import (
	"testing"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// A column that the pool asks for is waited for; others are not.
func TestAsked(t *testing.T) {
	if a := asked(&provisionrv1.PoolSpec{Networking: &provisionrv1.Networking{}, OsPolicy: &provisionrv1.OsPolicy{Reboot: "coordinated"}}); a.any() {
		t.Errorf("a pool that asks for nothing is asked for %s", a.first())
	}
	all := asked(&provisionrv1.PoolSpec{
		Repositories: []*provisionrv1.Repository{{}}, Downloads: []*provisionrv1.Download{{}}, Sysctl: map[string]string{"a": "b"},
		Modules: []*provisionrv1.KernelModule{{}}, Timezone: "UTC", Locale: "C", Swap: &provisionrv1.Swap{}, Filesystems: []*provisionrv1.Filesystem{{}},
		Networking: &provisionrv1.Networking{Mtu: 1400}, Vpn: &provisionrv1.PoolVpn{}, OsPolicy: &provisionrv1.OsPolicy{Selinux: "disabled"},
		Firewall: &provisionrv1.Firewall{Egress: []*provisionrv1.EgressRule{{}}}, Verify: &provisionrv1.VerifyPolicy{Profiles: []string{"hadoop"}},
	})
	for _, name := range extras {
		before := all
		all.remove(name)
		if all == before {
			t.Errorf("%s is not asked for", name)
		}
	}
	if all.any() {
		t.Errorf("%s is asked for and cannot be proven", all.first())
	}
}
