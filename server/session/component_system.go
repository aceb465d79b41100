package session

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Defaults of what a pool says about the system.
const (
	defaultSwap       = "/swapfile"
	defaultFilesystem = "ext4"
	// labelSize is the longest label that every type of file system takes: that of vfat.
	labelSize = 11
)

// systemOf maps what belongs to the operating system: the kernel, the locale, disks, the network, updates.
func systemOf(c *agentv1.PoolComponent, spec *provisionrv1.PoolSpec) {
	c.Sysctl, c.Timezone, c.Locale = maps.Clone(spec.GetSysctl()), spec.GetTimezone(), spec.GetLocale()
	for _, m := range spec.GetModules() {
		c.Modules = append(c.Modules, &agentv1.KernelModule{Name: m.GetName(), Options: m.GetOptions(), Absent: m.GetAbsent()})
	}
	if s := spec.GetSwap(); s != nil {
		c.Swap = &agentv1.Swap{SizeMib: s.GetSizeMib(), Path: cmp.Or(s.GetPath(), defaultSwap)}
	}
	for _, f := range spec.GetFilesystems() {
		options := f.GetOptions()
		if len(options) == 0 {
			options = []string{"defaults", "nofail"}
		}
		c.Filesystems = append(c.Filesystems, &agentv1.Filesystem{
			Path: f.GetPath(), Disk: f.GetDisk(), Device: f.GetDevice(), Type: cmp.Or(f.GetType(), defaultFilesystem),
			Options: options, Partition: f.GetPartition(), Label: cmp.Or(f.GetLabel(), labelOf(f.GetPath())),
		})
	}
	if n := spec.GetNetworking(); n != nil {
		c.Networking = &agentv1.Networking{Mtu: n.GetMtu(), Addresses: slices.Clone(n.GetAddresses())}
		for _, r := range n.GetRoutes() {
			c.Networking.Routes = append(c.Networking.Routes, &agentv1.Route{To: r.GetTo(), Via: r.GetVia(), Metric: r.GetMetric()})
		}
	}
	if p := spec.GetOsPolicy(); p != nil {
		c.OsPolicy = &agentv1.OsPolicy{
			UnattendedUpgrades: p.GetUnattendedUpgrades(), CoordinatedReboot: p.GetReboot() == "coordinated",
			Selinux: p.GetSelinux(), Apparmor: p.GetApparmor(),
		}
	}
}

// labelOf makes a label of the path that a file system is mounted at: its last letters and digits tell more than its first.
func labelOf(path string) string {
	label := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, path)
	return strings.Trim(label[max(0, len(label)-labelSize):], "-")
}
