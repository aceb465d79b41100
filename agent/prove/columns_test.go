package prove

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// asking is a state that asks for every assumption there is, and a world in which all of them hold.
func asking(t *testing.T) (*world, *desired.State) {
	w, s := newWorld(t), state()
	sum := sha256.Sum256([]byte("program"))
	p := s.Pool
	p.Repositories = []*agentv1.Repository{{Name: "own", Uris: []string{"http://repo.example/deb"}, Suites: []string{"stable"}}}
	p.Packages = []*agentv1.Package{
		{Name: "tree", Version: "2.1-1", Hold: true, Repository: "own"}, {Name: "telnet", Absent: true}, {Name: "mail-agent"},
	}
	p.Downloads = []*agentv1.Download{{Path: "/usr/local/bin/p", Sha256: sum[:]}, {Path: "/opt/app", Extract: true}}
	p.Files = []*agentv1.File{
		{Path: "/etc/a", Source: &agentv1.File_Content{Content: []byte("a\n")}}, {Path: "/etc/l", Source: &agentv1.File_Link{Link: "a"}},
		{Path: "/opt/app", Source: &agentv1.File_Directory{Directory: true}}, {Path: "/etc/none", Source: &agentv1.File_Absent{Absent: true}},
	}
	p.Users = []*agentv1.User{{Name: "ada", Uid: 1100, Shell: "/bin/sh", SshKeys: []string{"ssh-ed25519 AAAA ada"}, Groups: []string{"crew"}}, {Name: "bob", Absent: true}}
	p.Groups = []*agentv1.Group{{Name: "crew", Gid: 2000}}
	p.Sysctl = map[string]string{"vm.swappiness": "1", "net.ipv4.tcp_rmem": "1 2 3", "net/ipv4/conf/host0.1/forwarding": "1"}
	p.Modules = []*agentv1.KernelModule{{Name: "br-netfilter"}, {Name: "ext4"}, {Name: "floppy", Absent: true}}
	p.Timezone, p.Locale = "Europe/Berlin", "de_DE.UTF-8"
	p.Swap = &agentv1.Swap{SizeMib: 512}
	p.Filesystems = []*agentv1.Filesystem{{Path: "/data", Disk: 1}}
	p.Networking = &agentv1.Networking{Mtu: 1400, Addresses: []string{"192.0.2.7/24"}, Routes: []*agentv1.Route{{To: "10.9.0.0/16", Via: "10.0.0.254", Metric: 50}, {To: "fd01::/64", Via: "fd00::1"}}}
	p.OsPolicy = &agentv1.OsPolicy{Selinux: "disabled", Apparmor: "enabled"}
	p.Firewall.Egress = []*agentv1.FirewallRule{{Protocol: "tcp", Ports: []*agentv1.PortRange{{First: 2888, Last: 2888}}, Pools: []string{"zk"}}}
	p.Profiles = []string{"hadoop"}
	s.Machine.Vpn = &agentv1.VpnMember{Name: "mesh", Address: "10.7.0.1", Mtu: 1420, Port: 51820}
	s.VPN = []*agentv1.VpnNode{{Name: "zk-1", MachineId: "m-1", Address: "10.7.0.1"}, {Name: "zk-2", MachineId: "m-2", Address: "10.7.0.2"}}
	w.links[1].mtu = 1400
	w.links[1].addresses = append(w.links[1].addresses, netip.MustParsePrefix("192.0.2.7/24"))
	w.links = append(w.links, link{name: "pvn0", up: true, mtu: 1420, addresses: []netip.Prefix{netip.MustParsePrefix("10.7.0.1/24")}})
	for name, content := range map[string]string{
		"var/lib/dpkg/status":                       "Package: tree\nStatus: hold ok installed\nVersion: 2.1-1\n\nPackage: telnet\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: postfix\nStatus: install ok installed\nVersion: 3\nProvides: mail-agent (= 1), x\n",
		"etc/apt/sources.list.d/own.sources":        "URIs: http://repo.example/deb\nSigned-By: /etc/apt/keyrings/own.asc\n",
		"usr/local/bin/p":                           "program",
		"opt/app/x":                                 "",
		"etc/a":                                     "a\n",
		"etc/passwd":                                "root:x:0:0::/root:/bin/bash\nada:x:1100:1100::/home/ada:/bin/sh\n",
		"etc/group":                                 "root:x:0:\ncrew:x:2000:ada\n",
		"home/ada/.ssh/authorized_keys":             "# managed\nssh-ed25519 AAAA ada\n",
		"proc/sys/vm/swappiness":                    "1\n",
		"proc/sys/net/ipv4/tcp_rmem":                "1\t2\t3\n",
		"proc/sys/net/ipv4/conf/host0.1/forwarding": "1\n",
		"proc/modules":                              "br_netfilter 32768 0 - Live 0x0\nveth 32768 0 - Live 0x0\n",
		"lib/modules/6.1.0/modules.builtin":         "kernel/fs/ext4/ext4.ko\n",
		"usr/share/zoneinfo/Europe/Berlin":          "TZif",
		"etc/default/locale":                        "LANG=\"de_DE.UTF-8\"\n",
		"usr/lib/locale/locale-archive":             "\x00de_DE.utf8\x00",
		"proc/swaps":                                "Filename Type Size Used Priority\n/swapfile file 524284 0 -2\n",
		"proc/self/mountinfo":                       "22 1 8:1 / / rw - ext4 /dev/vda1 rw\n30 22 8:16 / /data rw,relatime shared:1 - ext4 /dev/vdb rw\n",
		"etc/fstab":                                 "UUID=1234-abcd /data ext4 defaults,nofail 0 2\n",
		"dev/vdb":                                   "",
		"dev/disk/by-uuid/.keep":                    "",
		"proc/self/net/route":                       "Iface Destination Gateway Flags RefCnt Use Metric Mask\nhost0 0000090A FE00000A 0003 0 0 50 0000FFFF 0 0 0\n",
		"proc/self/net/ipv6_route":                  "fd010000000000000000000000000000 40 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003 host0\n",
		"sys/module/apparmor/parameters/enabled":    "Y\n",
		"etc/hosts":                                 "127.0.0.1 localhost\n10.0.0.1 zk-1.example.internal zk-1\n",
	} {
		w.write(t, name, content)
	}
	for at, target := range map[string]string{"etc/l": "a", "etc/localtime": "/usr/share/zoneinfo/Europe/Berlin", "dev/disk/by-uuid/1234-abcd": "../../vdb"} {
		if err := os.Symlink(target, filepath.Join(w.root, at)); err != nil {
			t.Fatal(err)
		}
	}
	w.hosts["zk-1"] = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	w.ports["10.0.0.2:22"] = port{err: os.ErrDeadlineExceeded}
	return w, s
}

func TestAllAskedIsProven(t *testing.T) {
	w, s := asking(t)
	var names []string
	for _, p := range slices.Concat(w.Own(t.Context(), s), w.Peers(t.Context(), s)) {
		names = append(names, p.Assumption)
		if p.State != yes {
			t.Errorf("%v", p)
		}
	}
	for _, want := range []string{
		"repositories", "downloads", "sysctl", "modules", "timezone", "locale", "swap", "filesystems", "network", "vpn", "ospolicy", "firewall.egress",
		"hadoop.fqdn", "hadoop.address", "hadoop.ptr", "hadoop.getent", "hadoop.loopback", "hadoop.clock", "peer.dns", "peer.firewall", "vpn.peer",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not proven: %v", want, names)
		}
	}
}

func TestAskedFaults(t *testing.T) {
	empty := func(name string) func(*testing.T, *world, *desired.State) {
		return func(t *testing.T, w *world, _ *desired.State) { w.write(t, name, "") }
	}
	ping := netip.MustParseAddr
	for _, c := range []struct {
		name       string
		spoil      func(t *testing.T, w *world, s *desired.State)
		assumption string
		state      agentv1.ProofState
		found      string
	}{
		{"packages gone", empty("var/lib/dpkg/status"), "packages", no, "tree is not installed; mail-agent is not installed"},
		{"other version", func(_ *testing.T, _ *world, s *desired.State) { s.Pool.Packages[0].Version = "3" }, "packages", no, "tree is 2.1-1, not 3"},
		{"not held", func(t *testing.T, w *world, s *desired.State) {
			w.write(t, "var/lib/dpkg/status", "Package: tree\nStatus: install ok installed\nVersion: 2.1-1\n")
			s.Pool.Packages = s.Pool.Packages[:1]
		}, "packages", no, "tree is not held back"},
		{"unwanted", func(t *testing.T, w *world, s *desired.State) {
			w.write(t, "var/lib/dpkg/status", "Package: telnet\nStatus: install ok installed\nVersion: 1\n")
			s.Pool.Packages = s.Pool.Packages[1:2]
		}, "packages", no, "telnet 1 is installed"},
		{"from elsewhere", func(t *testing.T, w *world, _ *desired.State) {
			w.write(t, "var/lib/apt/lists/repo.example_deb_dists_stable_main_binary-amd64_Packages", "Package: tree\nVersion: 2.0\n\nPackage: other\nVersion: 2.1-1\n")
		}, "packages", no, "tree 2.1-1 is not from repository own"},
		{"from the repository", func(t *testing.T, w *world, _ *desired.State) {
			w.write(t, "var/lib/apt/lists/repo.example_deb_dists_stable_main_binary-amd64_Packages", "Package: tree\nVersion: 2.0\n\nPackage: tree\nArchitecture: amd64\nVersion: 2.1-1\n")
		}, "packages", yes, ""},
		{"no key", func(t *testing.T, w *world, _ *desired.State) {
			w.write(t, "etc/apt/sources.list.d/own.sources", "URIs: http://repo.example/deb\n")
		}, "repositories", no, "names no key"},
		{"download changed", empty("usr/local/bin/p"), "downloads", no, "/usr/local/bin/p has another hash"},
		{"file changed", empty("etc/a"), "files", no, "/etc/a has other content"},
		{"file back", empty("etc/none"), "files", no, "/etc/none is there"},
		{"another key", func(t *testing.T, w *world, _ *desired.State) {
			w.write(t, "home/ada/.ssh/authorized_keys", "ssh-ed25519 AAAA ada\nssh-ed25519 BBBB eve\n")
		}, "users", no, "account ada has other keys"},
		{"not in its group", func(t *testing.T, w *world, _ *desired.State) { w.write(t, "etc/group", "crew:x:2000:\n") }, "users", no, "account ada is not in group crew"},
		{"other gid", func(_ *testing.T, _ *world, s *desired.State) { s.Pool.Groups[0].Gid = 7 }, "users", no, "group crew has gid 2000, not 7"},
		{"absent user", func(_ *testing.T, _ *world, s *desired.State) { s.Pool.Users[1].Name = "root" }, "users", no, "account root is there"},
		{"sysctl", func(t *testing.T, w *world, _ *desired.State) { w.write(t, "proc/sys/vm/swappiness", "60\n") }, "sysctl", no, `vm.swappiness is "60", not "1"`},
		{"unknown sysctl", func(_ *testing.T, _ *world, s *desired.State) { s.Pool.Sysctl["vm.none"] = "1" }, "sysctl", no, "vm.none is no parameter"},
		{"sysctl of the host", func(_ *testing.T, _ *world, s *desired.State) { s.Machine.SharedKernel = true }, "sysctl", maybe, "shares"},
		{"sysctl of the network, shared", func(_ *testing.T, _ *world, s *desired.State) {
			s.Machine.SharedKernel = true
			delete(s.Pool.Sysctl, "vm.swappiness")
		}, "sysctl", yes, ""},
		{"module", empty("proc/modules"), "modules", no, "br-netfilter is not loaded"},
		{"unwanted module", func(_ *testing.T, _ *world, s *desired.State) { s.Pool.Modules[2].Name = "veth" }, "modules", no, "veth is loaded"},
		{"zone", func(_ *testing.T, _ *world, s *desired.State) { s.Pool.Timezone = "UTC" }, "timezone", no, "Europe/Berlin"},
		{"locale", empty("etc/default/locale"), "locale", no, "none"},
		{"locale not made", empty("usr/lib/locale/locale-archive"), "locale", no, "not generated"},
		{"swap off", func(t *testing.T, w *world, _ *desired.State) {
			w.write(t, "proc/swaps", "Filename Type Size Used Priority\n")
		}, "swap", no, "no swap"},
		{"no swap wanted", func(_ *testing.T, _ *world, s *desired.State) { s.Pool.Swap.SizeMib = 0 }, "swap", no, "512 MiB in /swapfile"},
		{"not mounted", empty("proc/self/mountinfo"), "filesystems", no, "/data is not mounted"},
		{"another type", func(_ *testing.T, _ *world, s *desired.State) { s.Pool.Filesystems[0].Type = "xfs" }, "filesystems", no, "/data is ext4, not xfs"},
		{"by a mount unit", func(t *testing.T, w *world, _ *desired.State) {
			w.write(t, "etc/fstab", "")
			w.write(t, "etc/systemd/system/data.mount", "[Mount]\nWhat=/dev/disk/by-uuid/1234-abcd\nWhere=/data\n")
		}, "filesystems", yes, ""},
		{"not by UUID", func(t *testing.T, w *world, _ *desired.State) { w.write(t, "etc/fstab", "/dev/vdb /data ext4\n") }, "filesystems", no, "not mounted by its UUID"},
		{"MTU", func(_ *testing.T, w *world, _ *desired.State) { w.links[1].mtu = 1500 }, "network", no, "host0 has MTU 1500, not 1400"},
		{"address", func(_ *testing.T, w *world, _ *desired.State) { w.links[1].addresses = w.links[1].addresses[:1] }, "network", no, "no address 192.0.2.7/24"},
		{"routes", empty("proc/self/net/route"), "network", no, "no route to 10.9.0.0/16 via 10.0.0.254"},
		{"no VPN", func(_ *testing.T, w *world, _ *desired.State) { w.links = w.links[:2] }, "vpn", no, "no interface pvn0"},
		{"VPN without address", func(_ *testing.T, _ *world, s *desired.State) { s.Machine.Vpn.Address = "" }, "vpn", maybe, "none is known"},
		{"VPN silent", func(_ *testing.T, w *world, _ *desired.State) { w.lost[ping("10.7.0.2")] = errors.New("no answer") }, "vpn.peer", no, "no answer"},
		{"VPN silent behind a relay", func(_ *testing.T, w *world, s *desired.State) {
			s.VPN, w.lost[ping("10.7.0.9")] = s.VPN[:1], errors.New("no answer")
			for _, m := range s.Members["zk"] {
				m.VpnAddress = "10.7.0.9"
			}
		}, "vpn.peer", no, "no answer"},
		{"no ping", func(_ *testing.T, w *world, _ *desired.State) { w.lost[ping("10.7.0.2")] = os.ErrPermission }, "vpn.peer", maybe, "may not send"},
		{"AppArmor", empty("sys/module/apparmor/parameters/enabled"), "ospolicy", no, "AppArmor is disabled, not enabled"},
		{"egress open", func(_ *testing.T, w *world, _ *desired.State) { w.ports["10.0.0.2:22"] = port{} }, "firewall.egress", no, "it was reached"},
		{"egress, peer away", func(_ *testing.T, w *world, _ *desired.State) { w.lost[ping("10.0.0.2")] = errors.New("no answer") }, "firewall.egress", maybe, "ping"},
		{"egress allowed", func(_ *testing.T, w *world, s *desired.State) {
			s.Pool.Firewall.Egress[0].Ports[0] = &agentv1.PortRange{First: 22, Last: 22}
			w.ports["10.0.0.2:22"] = port{}
		}, "firewall.egress", yes, "as a rule allows"},
		{"short name", func(_ *testing.T, _ *world, s *desired.State) { s.Machine.Fqdn = "zk-1" }, "hadoop.fqdn", no, "has no domain"},
		{"name twice", func(_ *testing.T, _ *world, s *desired.State) {
			s.Members["web"] = []*agentv1.Member{{Name: "web-1", Index: 1, Fqdn: "ZK-1.example.internal"}}
		}, "hadoop.fqdn", no, "web-1 has it too"},
		{"public address", func(_ *testing.T, _ *world, s *desired.State) { s.Machine.Address = "8.8.8.8" }, "hadoop.address", no, "no private address"},
		{"address not up", func(_ *testing.T, w *world, _ *desired.State) { w.links = w.links[:1] }, "hadoop.address", no, "no interface has it"},
		{"two names", func(_ *testing.T, w *world, _ *desired.State) {
			w.dns["10.0.0.251:53 1.0.0.10.in-addr.arpa"] = answer{data: []string{"a", "zk-1.example.internal"}}
		}, "hadoop.ptr", no, "10.0.0.251:53: a, zk-1.example.internal"},
		{"one server away", func(_ *testing.T, w *world, _ *desired.State) {
			w.dns["10.0.0.251:53 1.0.0.10.in-addr.arpa"] = answer{err: errSilent}
		}, "hadoop.ptr", yes, ""},
		{"loopback line", func(t *testing.T, w *world, _ *desired.State) {
			w.write(t, "etc/hosts", "127.0.1.1 zk-1.example.internal zk-1\n")
		}, "hadoop.loopback", no, "/etc/hosts has 127.0.1.1 zk-1.example.internal zk-1"},
		{"loopback of the short name", func(_ *testing.T, w *world, _ *desired.State) {
			w.hosts["zk-1"] = []netip.Addr{netip.MustParseAddr("::1")}
		}, "hadoop.loopback", no, "zk-1 is ::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s := asking(t)
			c.spoil(t, w, s)
			proofs := slices.Concat(w.Own(t.Context(), s), w.Peers(t.Context(), s))
			i := slices.IndexFunc(proofs, func(p *agentv1.Proof) bool { return p.Assumption == c.assumption })
			if p := proofs[i]; p.State != c.state || !strings.Contains(p.Found, c.found) || (p.State != yes && (p.Remedy == "" || p.Expected == "")) {
				t.Errorf("got %v, want %s with %q", p, c.state, c.found)
			}
		})
	}
}

// A machine whose resources have not been checked yet still sees for itself.
func TestSeenWithoutResources(t *testing.T) {
	w, s := asking(t)
	w.results = func(context.Context) (*converge.Run, error) { return nil, errors.New("not yet") }
	for _, p := range w.Own(t.Context(), s) {
		if p.Assumption == "sysctl" && p.State != yes {
			t.Errorf("%v", p)
		}
	}
}

func TestAuditTellsWhoRepairs(t *testing.T) {
	w, s := asking(t)
	w.write(t, "etc/a", "spoiled")
	s.Pool.Audit = true
	for _, p := range w.Own(t.Context(), s) {
		if p.Assumption == "files" && !strings.Contains(p.Remedy, "audit mode") {
			t.Errorf("%v", p)
		}
	}
}
