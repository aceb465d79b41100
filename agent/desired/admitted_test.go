package desired_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// full has something of everything that servers admit, as close to the bounds as they allow.
func full() *parts {
	p, sum := example(), bytes.Repeat([]byte{1}, sha256.Size)
	key := base64.StdEncoding.EncodeToString(sum)
	m := p.machine
	m.NtpServers = []string{"0.Debian.pool.ntp.org.", "10.88.0.1", "fd00::1"}
	m.NtpPools = []string{"2.debian.pool.ntp.org"}
	m.HttpProxy, m.ProxyEnvironment, m.NoProxy = "http://10.88.0.1:3142", true, []string{"localhost", "10.0.0.0/8", "*.example.com", "fd00::1"}
	m.PackageMirrors = map[string]string{"http://deb.debian.org/debian": "http://10.88.0.1/debian"}
	m.SshAuthorities = []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS"}
	m.Vpn = &agentv1.VpnMember{Name: "wg", Cidr: "10.99.0.0/16", Port: 51820, Mtu: 1420, Address: "10.99.0.2", Routes: []string{"10.0.0.0/8"}}
	m.Programs = map[string][]byte{"wireguard/amd64": sum}
	m.SharedKernel, m.ServerRanges = true, []string{"10.88.0.1/32", "fd00::1/128"}
	p.vpn = &agentv1.VpnComponent{Nodes: []*agentv1.VpnNode{
		{Name: "zk-1", MachineId: "m-eeeeffffgggghhhh", Pool: "zk", PublicKey: key, Endpoint: "10.88.0.11:51820", Address: "10.99.0.1", Gateway: true, Relay: true, Routes: []string{"10.0.0.0/8"}},
		{Name: "laptop", PublicKey: key, Address: "fd99::2", Via: "m-eeeeffffgggghhhh", BehindNat: true},
	}}
	c, text := p.pool, "[Service]\nExecStart=/bin/true \"a b\"\n"
	for _, ending := range []string{"service", "socket", "timer", "path", "mount", "target", "automount", "swap", "slice"} {
		c.Services = append(c.Services, &agentv1.Service{Name: "a@b-c." + ending, Content: &text, Override: &text, RestartOn: []string{"/etc/motd"}})
	}
	c.Packages = append(c.Packages, &agentv1.Package{Name: "nginx", Hold: true, Repository: "nginx.org"})
	c.Repositories = []*agentv1.Repository{
		{Name: "docker", Uris: []string{"https://download.docker.com/linux/debian"}, Suites: []string{"bookworm"}, SignedBy: "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"},
		{Name: "nginx.org", Uris: []string{"https://nginx.org/packages?a=\"b\""}, SignedByUrl: "https://nginx.org/key", SignedBySha256: sum},
	}
	c.Files = append(c.Files,
		&agentv1.File{Path: "/etc/secret", Source: &agentv1.File_Secret{Secret: "db-password"}, Mode: 0o600},
		&agentv1.File{Path: "/srv/data dir", Source: &agentv1.File_Directory{Directory: true}, Mode: 0o2775},
		&agentv1.File{Path: "/srv/now", Source: &agentv1.File_Link{Link: "../releases/1"}},
	)
	c.Downloads = []*agentv1.Download{{Path: "/opt/kafka", Urls: []string{"https://example.org/kafka.tgz"}, Sha256: sum, Mode: 0o755, Extract: true, Strip: 1}}
	c.Groups = []*agentv1.Group{{Name: "kafka", Gid: 60000, System: true}, {Name: "old", Absent: true}}
	c.Users = append(c.Users, &agentv1.User{
		Name: "kafka", Uid: 60000, Home: "/var/lib/kafka", Group: "kafka", Groups: []string{"adm"}, System: true,
		Sudo: []string{"/usr/bin/systemctl restart kafka"}, Shell: "/usr/sbin/nologin",
	})
	c.Ssh = &agentv1.Ssh{Settings: map[string]string{"MaxAuthTries": "3", "Subsystem": "sftp internal-sftp"}, Certificates: true}
	c.Sysctl = map[string]string{"vm.swappiness": "1", "net/ipv4/conf/eth0.100/forwarding": "1", "net.ipv4.conf.*.rp_filter": "2", "kernel.core_pattern": "|/bin/false %p"}
	c.Modules = []*agentv1.KernelModule{{Name: "br_netfilter"}, {Name: "bonding", Options: "mode=1 miimon=100"}, {Name: "floppy", Absent: true}}
	c.Timezone, c.Locale, c.Swap = "America/Argentina/Buenos_Aires", "ca_ES.UTF-8@valencia", &agentv1.Swap{SizeMib: 512, Path: "/swapfile"}
	c.Filesystems = []*agentv1.Filesystem{
		{Path: "/data", Disk: 1, Type: "xfs", Options: []string{"defaults", "x-systemd.device-timeout=10s"}, Partition: true, Label: "data"},
		{Path: "/srv/boot", Device: "/dev/disk/by-id/nvme-x:1", Type: "vfat"},
	}
	c.Networking = &agentv1.Networking{Mtu: 9000, Addresses: []string{"192.0.2.7/24", "fd00::7/64"}, Routes: []*agentv1.Route{{To: "10.9.0.0/16", Via: "10.88.0.1", Metric: 5}}}
	c.OsPolicy = &agentv1.OsPolicy{UnattendedUpgrades: "security", CoordinatedReboot: true, Selinux: "enforcing", Apparmor: "enabled"}
	c.Profiles, c.Roles, c.Secrets, c.Audit = []string{"hadoop"}, []string{"broker"}, []*agentv1.SecretRef{{Name: "db-password"}}, true
	anywhere := []*agentv1.PortRange{{First: 1, Last: 65535}}
	c.Firewall.Rules = append(c.Firewall.Rules, &agentv1.FirewallRule{
		Name: "kafka", Protocol: "tcp", Ports: anywhere, Pools: []string{"web"}, Machines: []string{"db-1"}, Vpn: true, Drop: true,
	})
	c.Firewall.Egress = []*agentv1.FirewallRule{{Name: "out", Protocol: "udp", Ports: anywhere, Cidrs: []string{"0.0.0.0/0"}}}
	return p
}

// What servers admit must not be refused here: it would stop every machine of its pool.
func TestDecodeAcceptsWhatIsAdmitted(t *testing.T) {
	p := full()
	s, err := desired.Decode(p.encode(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.VPN) != 2 || !proto.Equal(s.VPN[1], p.vpn.Nodes[1]) {
		t.Errorf("vpn nodes %v", s.VPN)
	}
	if !proto.Equal(s.Pool, p.pool) || !proto.Equal(s.Machine, p.machine) {
		t.Error("something was changed")
	}
}

type refusal struct {
	name   string
	change func(*parts)
	want   string
}

// refused are changes of a full state that make it unusable.
func refused() []refusal {
	return []refusal{
		{"machine of another pool", func(p *parts) { p.machine.Pool = "web" }, "component of pool"},
		{"name with a path", func(p *parts) { p.machine.Name = "../x" }, "machine name"},
		{"name does not fit", func(p *parts) { p.machine.Fqdn = "zk-2.example.com" }, "is not machine name and domain"},
		{"address", func(p *parts) { p.machine.Address = "10.88.0" }, "address"},
		{"time server", func(p *parts) { p.machine.NtpServers = []string{"a b"} }, "time server"},
		{"name server without port", func(p *parts) { p.machine.DnsServers = []string{"10.0.0.1"} }, "name server"},
		{"proxy with a line break", func(p *parts) { p.machine.HttpProxy = "http://a\nb" }, "proxy"},
		{"member's further address", func(p *parts) { p.chunks[0].Members[0].FurtherAddresses = []string{"fd00::1", "fd00::2%eth0"} }, "further address"},
		{"member's name", func(p *parts) { p.chunks[0].Members[0].Fqdn = "a b" }, "member"},
		{"option as package", func(p *parts) { p.pool.Packages[0].Name = "-y" }, "package"},
		{"relative path", func(p *parts) { p.pool.Files[0].Path = "etc/motd" }, "file path"},
		{"path that is not clean", func(p *parts) { p.pool.Files[0].Path = "/etc/../motd" }, "file path"},
		{"file twice", func(p *parts) { p.pool.Files = append(p.pool.Files, p.pool.Files[0]) }, "twice"},
		{"file without content", func(p *parts) { p.pool.Files[0].Source = nil }, "no content"},
		{"mode", func(p *parts) { p.pool.Files[0].Mode = 0o10000 }, "mode"},
		{"user", func(p *parts) { p.pool.Users[0].Name = "ada:x" }, "user"},
		{"two keys in one", func(p *parts) { p.pool.Users[0].SshKeys[0] += "\nssh-rsa x" }, "ssh key"},
		{"ports", func(p *parts) { p.pool.Firewall.Rules[0].Ports[0].Last = 1 }, "ports"},
		{"source", func(p *parts) { p.pool.Firewall.Rules[0].Cidrs = []string{"10.0.0.0"} }, "source"},
		{"protocol", func(p *parts) { p.pool.Firewall.Rules[0].Protocol = "icmp" }, "protocol"},
		{"service without ending", func(p *parts) { p.pool.Services[0].Name = "zookeeper" }, "service"},
		{"time pool", func(p *parts) { p.machine.NtpPools = []string{"a\nb"} }, "time server"},
		{"mirror", func(p *parts) { p.machine.PackageMirrors = map[string]string{"http://a": "http://b\nTrusted: yes"} }, "package mirror"},
		{"no proxy", func(p *parts) { p.machine.NoProxy = []string{"a\"; x"} }, "without proxy"},
		{"authority", func(p *parts) { p.machine.SshAuthorities[0] += "\nssh-rsa AAAA" }, "ssh authority"},
		{"program", func(p *parts) { p.machine.Programs["../x"] = make([]byte, 32) }, "program"},
		{"program's hash", func(p *parts) { p.machine.Programs["x/amd64"] = nil }, "program"},
		{"servers' range", func(p *parts) { p.machine.ServerRanges = []string{"10.0.0.1"} }, "servers' range"},
		{"vpn port", func(p *parts) { p.machine.Vpn.Port = 0 }, "port 0"},
		{"vpn address", func(p *parts) { p.machine.Vpn.Address = "10.98.0.1" }, "in vpn wg"},
		{"vpn route", func(p *parts) { p.machine.Vpn.Routes = []string{"x"} }, "route"},
		{"node's key", func(p *parts) { p.vpn.Nodes[0].PublicKey = "AAAA" }, "public key"},
		{"node's endpoint", func(p *parts) { p.vpn.Nodes[0].Endpoint = "10.0.0.1" }, "endpoint"},
		{"node's address", func(p *parts) { p.vpn.Nodes[0].Address = "" }, "address"},
		{"node's name", func(p *parts) { p.vpn.Nodes[0].Name = "a]\nb" }, "vpn node"},
		{"node's route", func(p *parts) { p.vpn.Nodes[0].Routes = []string{"10.0.0.0"} }, "route"},
		{"repository's package", func(p *parts) { p.pool.Packages[0].Repository = "a b" }, "repository"},
		{"key without hash", func(p *parts) { p.pool.Repositories[1].SignedBySha256 = nil }, "key of repository"},
		{"key's address", func(p *parts) { p.pool.Repositories[1].SignedByUrl = "https://a\nb" }, "repository"},
		{"target of a link", func(p *parts) { p.pool.Files[0].Source = &agentv1.File_Link{Link: "a\nb"} }, "target"},
		{"secret's name", func(p *parts) { p.pool.Files[0].Source = &agentv1.File_Secret{Secret: "../x"} }, "secret"},
		{"download over a file", func(p *parts) { p.pool.Downloads[0].Path = "/etc/motd" }, "twice"},
		{"download's path", func(p *parts) { p.pool.Downloads[0].Path = "/" }, "download path"},
		{"download's address", func(p *parts) { p.pool.Downloads[0].Urls[0] = "file:///etc/shadow" }, "address"},
		{"download's hash", func(p *parts) { p.pool.Downloads[0].Sha256 = []byte{1} }, "no hash"},
		{"group", func(p *parts) { p.pool.Groups[0].Name = "a:b" }, "group"},
		{"home", func(p *parts) { p.pool.Users[0].Home = "/home/../etc" }, "home"},
		{"shell", func(p *parts) { p.pool.Users[0].Shell = "/bin/sh:x" }, "shell"},
		{"primary group", func(p *parts) { p.pool.Users[0].Group = "a b" }, "primary group"},
		{"sudo", func(p *parts) { p.pool.Users[0].Sudo = []string{"/bin/a\nALL"} }, "sudo"},
		{"sshd keyword", func(p *parts) { p.pool.Ssh.Settings["A\nB"] = "x" }, "sshd setting"},
		{"sshd value", func(p *parts) { p.pool.Ssh.Settings["Banner"] = "x\nPermitRootLogin yes" }, "sshd setting"},
		{"sshd match", func(p *parts) { p.pool.Ssh.Settings["match"] = "all" }, "sshd setting"},
		{"rule's name", func(p *parts) { p.pool.Firewall.Rules[0].Name = "a\" accept" }, "name"},
		{"rule's machine", func(p *parts) { p.pool.Firewall.Rules[1].Machines = []string{"a b"} }, "machine"},
		{"egress", func(p *parts) { p.pool.Firewall.Egress[0].Cidrs = []string{"x"} }, "source"},
		{"unit content", func(p *parts) { p.pool.Services[1].Content = proto.String("a\x00b") }, "content of service"},
		{"restart path", func(p *parts) { p.pool.Services[1].RestartOn = []string{"etc/x"} }, "depends on"},
		{"sysctl out of its tree", func(p *parts) { p.pool.Sysctl["net/../../../etc/passwd"] = "x" }, "kernel parameter"},
		{"sysctl value", func(p *parts) { p.pool.Sysctl["vm.swappiness"] = "1\nkernel.panic=1" }, "kernel parameter"},
		{"module", func(p *parts) { p.pool.Modules[0].Name = "a b" }, "kernel module"},
		{"module options", func(p *parts) { p.pool.Modules[1].Options = "a\ninstall x" }, "kernel module"},
		{"time zone", func(p *parts) { p.pool.Timezone = "../../etc/shadow" }, "time zone"},
		{"locale", func(p *parts) { p.pool.Locale = "C\nLD_PRELOAD=x" }, "locale"},
		{"swap", func(p *parts) { p.pool.Swap.Path = "/a b" }, "swap"},
		{"mount", func(p *parts) { p.pool.Filesystems[0].Path = "/data x" }, "file system"},
		{"mount twice", func(p *parts) { p.pool.Filesystems[1].Path = "/data" }, "twice"},
		{"disk and device", func(p *parts) { p.pool.Filesystems[0].Device = "/dev/vdb" }, "one disk"},
		{"device", func(p *parts) { p.pool.Filesystems[1].Device = "/dev/../etc/passwd" }, "device"},
		{"file system", func(p *parts) { p.pool.Filesystems[0].Type = "btrfs" }, "type"},
		{"mount option", func(p *parts) { p.pool.Filesystems[0].Options[0] = "a 0 0" }, "option"},
		{"label", func(p *parts) { p.pool.Filesystems[0].Label = "a b" }, "label"},
		{"mtu", func(p *parts) { p.pool.Networking.Mtu = 100 }, "mtu"},
		{"further address", func(p *parts) { p.pool.Networking.Addresses[0] = "10.0.0.1" }, "further address"},
		{"route", func(p *parts) { p.pool.Networking.Routes[0].Via = "x" }, "route"},
		{"policy", func(p *parts) { p.pool.OsPolicy.Selinux = "off\nx" }, "selinux"},
		{"role", func(p *parts) { p.pool.Roles[0] = "A B" }, "role"},
	}
}
