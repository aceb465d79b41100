package implied_test

import (
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/resource/internal/implied"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func TestPackages(t *testing.T) {
	all := &agentv1.PoolComponent{
		Firewall: &agentv1.Firewall{Enabled: true}, Users: []*agentv1.User{{Admin: true}, {Sudo: []string{"/bin/x"}}}, Ssh: &agentv1.Ssh{},
		Timezone: "UTC", Locale: "de_DE.UTF-8", Modules: []*agentv1.KernelModule{{}},
		Filesystems: []*agentv1.Filesystem{{Type: "xfs", Partition: true}, {Type: "vfat"}, {Type: "ext4"}, {}},
	}
	for _, c := range []struct {
		name, distribution, want string
		shared                   bool
		pool                     *agentv1.PoolComponent
	}{
		{"nothing", "debian", "chrony", false, &agentv1.PoolComponent{}},
		{"debian", "debian", "chrony dosfstools e2fsprogs fdisk kmod locales nftables openssh-server sudo tzdata xfsprogs", false, all},
		{"fedora", "fedora", "chrony dosfstools e2fsprogs glibc-langpack-de kmod nftables openssh-server sudo tzdata xfsprogs", false, all},
		{"container", "debian", "chrony locales nftables openssh-server sudo tzdata", true, all},
		{"built-in locale", "debian", "chrony", false, &agentv1.PoolComponent{Locale: "C.UTF-8"}},
		{"upgrades", "debian", "chrony unattended-upgrades", false, &agentv1.PoolComponent{OsPolicy: &agentv1.OsPolicy{UnattendedUpgrades: "security"}}},
		{"upgrades of fedora", "fedora", "chrony dnf-automatic", false, &agentv1.PoolComponent{OsPolicy: &agentv1.OsPolicy{UnattendedUpgrades: "all"}}},
		{"upgrades off", "debian", "chrony", false, &agentv1.PoolComponent{OsPolicy: &agentv1.OsPolicy{UnattendedUpgrades: "off"}}},
		{"account that goes", "debian", "chrony", false, &agentv1.PoolComponent{Users: []*agentv1.User{{Admin: true, Absent: true}}}},
	} {
		s := &desired.State{Machine: &agentv1.MachineComponent{Os: &agentv1.OperatingSystem{Distribution: c.distribution}, SharedKernel: c.shared}, Pool: c.pool}
		if got := strings.Join(implied.Packages(s), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
