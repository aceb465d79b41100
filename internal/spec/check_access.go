package spec

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// CanaryPort is the TCP port on which every machine proves that its firewall drops what no rule allows.
const CanaryPort = 7447

func checkUsers(d *document, users []*provisionrv1.UserAccount) {
	d.unique("spec.users", len(users), func(i int) (string, string) { return "name", users[i].Name })
	for i, u := range users {
		p := at("spec.users", i)
		if u.Name == root && u.Absent {
			d.complain(join(p, "absent"), "", "root cannot be absent")
		}
		if hasControl(u.Shell) {
			d.complain(join(p, "shell"), "as /bin/bash", "%s has a control character in it", show(u.Shell))
		}
		d.unique(join(p, "groups"), len(u.Groups), func(j int) (string, string) { return "", u.Groups[j] })
		keys := map[string]int{}
		for j, k := range u.SshKeys {
			checkKey(d, at(join(p, "sshKeys"), j), k, j, keys)
		}
	}
}

// checkKey checks a line of authorized_keys; seen has the keys before it.
func checkKey(d *document, p, line string, index int, seen map[string]int) {
	const hint = "paste the one line of a .pub file, as ssh-ed25519 AAAA... you@host"
	line = strings.TrimSpace(line)
	switch {
	case strings.Contains(line, "PRIVATE KEY"):
		d.complain(p, "use the .pub file beside it, and make a new key if this manifest has been shared", "is a private key")
		return
	case strings.ContainsAny(line, "\n\r"):
		d.complain(p, hint, "has more than one line")
		return
	case hasControl(line):
		d.complain(p, hint, "has a control character, such as a tab, in it")
		return
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		d.complain(p, hint, "is not an ssh public key")
		return
	}
	if key.Type() == "ssh-dss" {
		d.complain(p, "make an ed25519 key: ssh-keygen -t ed25519", "is a DSA key, which sshd refuses")
		return
	}
	if first, ok := seen[string(key.Marshal())]; ok {
		d.complain(p, "", "is the same key as the one in sshKeys[%d]", first)
		return
	}
	seen[string(key.Marshal())] = index
}

func checkFirewall(d *document, f *provisionrv1.Firewall) {
	rules := f.GetRules()
	d.unique("spec.firewall.rules", len(rules), func(i int) (string, string) { return "name", rules[i].Name })
	for i, r := range rules {
		p := at("spec.firewall.rules", i)
		if r.Name == "ssh" {
			d.complain(join(p, "name"), "use spec.firewall.sshFrom, or another name", `"ssh" is the name of the rule for sshd`)
		}
		for j, ports := range r.Ports {
			checkPorts(d, at(join(p, "ports"), j), ports, r.Protocol)
		}
		for j, from := range r.From {
			checkSource(d, at(join(p, "from"), j), from)
		}
	}
	for i, from := range f.GetSshFrom() {
		checkSource(d, at("spec.firewall.sshFrom", i), from)
	}
}

// Ports parses "80" or "8000-8010".
func Ports(text string) (first, last uint16, ok bool) {
	a, b, isRange := strings.Cut(text, "-")
	if !isRange {
		b = a
	}
	low, errLow := strconv.ParseUint(a, 10, 16)
	high, errHigh := strconv.ParseUint(b, 10, 16)
	if errLow != nil || errHigh != nil || low == 0 || low > high {
		return 0, 0, false
	}
	return uint16(low), uint16(high), true
}

func checkPorts(d *document, p, text, protocol string) {
	first, last, ok := Ports(text)
	switch {
	case !ok:
		d.complain(p, "ports are 1 to 65535, the lower one of a range first", "%s is not a port or range of ports", show(text))
	case protocol != "udp" && first <= CanaryPort && CanaryPort <= last:
		hint := "use another port"
		if first < last {
			hint = "leave it out of the range, as with two ranges"
		}
		d.complain(p, hint, "port %d cannot be opened: machines prove with it that the firewall drops what no rule allows", CanaryPort)
	}
}

func checkSource(d *document, p, text string) {
	const hint = "any, network, self, pool:NAME, an address or a CIDR"
	switch {
	case text == "any", text == "network", text == "self":
		return
	case strings.HasPrefix(text, "pool:"):
		if name := strings.TrimPrefix(text, "pool:"); toLabel(name) != name || name == "" {
			d.complain(p, "as pool:web", "%s does not name a pool", show(text))
		}
		return
	}
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			d.complain(p, hint, "%s is not a range of addresses", show(text))
		case prefix.Masked() != prefix:
			d.complain(p, "as "+prefix.Masked().String(), "%s has bits set after its prefix", show(text))
		case prefix.Bits() == 0:
			d.complain(p, "write any", "%s is everybody", show(text))
		}
		return
	}
	if a, err := netip.ParseAddr(text); err != nil || a.Zone() != "" {
		if n := near(text, []string{"any", "network", "self"}); n != "" {
			d.complain(p, n, "%s is not a source", show(text))
			return
		}
		d.complain(p, hint, "%s is not a source", show(text))
	}
}
