package network

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDetect(t *testing.T) {
	const cloudNetworkd = "# This is private data. Do not parse.\nADMIN_STATE=configured\nOPER_STATE=routable\nNETWORK_FILE=/run/systemd/network/10-netplan-eth0.network\nDNS=10.0.0.1\n"
	for _, c := range []struct {
		name  string
		facts facts
		want  manager
		file  string
	}{
		{"Ubuntu with netplan", facts{name: "eth0", networkd: cloudNetworkd}, networkd, "10-netplan-eth0.network"},
		{"Debian with cloud-init's networkd renderer", facts{name: "eth0", networkd: "ADMIN_STATE=configuring\nNETWORK_FILE=/etc/systemd/network/10-cloud-init-eth0.network\n"}, networkd, "10-cloud-init-eth0.network"},
		{"networkd runs and leaves it alone", facts{name: "eth0", networkd: "ADMIN_STATE=unmanaged\n"}, none, ""},
		{"networkd was told to leave it alone", facts{name: "eth0", networkd: "ADMIN_STATE=unmanaged\nNETWORK_FILE=/etc/systemd/network/x.network\n"}, none, ""},
		{"Fedora and Rocky", facts{name: "eth0", networkManager: "[device]\nmanaged=true\nconnection-uuid=1\n"}, networkManager, ""},
		{"netplan with NetworkManager beside networkd", facts{name: "eth0", networkd: "ADMIN_STATE=unmanaged\n", networkManager: "managed=true\n"}, networkManager, ""},
		{"NetworkManager leaves it to ifupdown", facts{name: "eth0", networkManager: "[device]\nmanaged=false\n", ifstate: "lo=lo\neth0=eth0\n"}, ifupdown, ""},
		{"Debian's cloud image with ifupdown, not up yet", facts{name: "ens3", interfaces: "auto lo\niface lo inet loopback\n\nauto ens3\niface ens3 inet dhcp\n"}, ifupdown, ""},
		{"ifupdown knows another", facts{name: "eth1", interfaces: "iface eth0 inet dhcp\n", ifstate: "eth0=eth0\n"}, none, ""},
		{"ifupdown by hand", facts{name: "eth0", interfaces: "iface eth0 inet manual\n"}, none, ""},
		{"nobody", facts{name: "eth0"}, none, ""},
	} {
		if got, file := detect(c.facts); got != c.want || file != c.file {
			t.Errorf("%s: %s, %q; want %s, %q", c.name, got, file, c.want, c.file)
		}
	}
}

func TestFiles(t *testing.T) {
	c := config{
		MTU: 1400, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")},
		Routes: []route{{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParseAddr("10.0.0.9"), 7}, {netip.MustParsePrefix("fd09::/16"), netip.MustParseAddr("fd00::9"), 0}},
	}
	const steps = "ip link set dev eth0 mtu 1400\nip address replace 192.0.2.7/24 dev eth0\nip route replace 10.9.0.0/16 via 10.0.0.9 dev eth0 metric 7\nip route replace fd09::/16 via fd00::9 dev eth0\nexit 0\n"
	for m, want := range map[manager][2]string{
		networkd: {"/etc/systemd/network/10-x.network.d/50-provisionr.conf", "# Managed by provisionr-agent.\n[Link]\nMTUBytes=1400\n[Address]\nAddress=192.0.2.7/24\n" +
			"[Route]\nDestination=10.9.0.0/16\nGateway=10.0.0.9\nMetric=7\n[Route]\nDestination=fd09::/16\nGateway=fd00::9\n"},
		networkManager: {dispatcherPath, "#!/bin/sh\n# Managed by provisionr-agent.\n[ \"$1\" = eth0 ] && [ \"$2\" = up ] || exit 0\n" + steps},
		ifupdown:       {hookPath, "#!/bin/sh\n# Managed by provisionr-agent.\n[ \"$IFACE\" = eth0 ] || exit 0\n" + steps},
	} {
		f := m.file("10-x.network", "eth0", c)
		if diff := cmp.Diff(want, [2]string{f.Path, string(f.Content)}); diff != "" || f.Absent {
			t.Errorf("%s: absent %v\n%s", m, f.Absent, diff)
		}
		if !m.file("10-x.network", "eth0", config{}).Absent {
			t.Errorf("%s keeps a file for nothing", m)
		}
	}
	if f := none.file("", "eth0", c); f != nil {
		t.Errorf("nobody has file %s", f.Path)
	}
}
