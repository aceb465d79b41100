package spec

import (
	"net/netip"
	"strconv"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

const (
	// CanaryPort is the TCP port on which every machine proves that its firewall drops what no rule allows.
	CanaryPort = 7447
	// ConfirmPort is the TCP port on which every machine is called to confirm that a change has not cut it off.
	ConfirmPort = 7446

	portsHint = "ports are 1 to 65535, the lower one of a range first"
)

func checkFirewall(d *document, pool string, spec *provisionrv1.PoolSpec) {
	f := spec.GetFirewall()
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
			checkSource(d, at(join(p, "from"), j), from, pool, spec)
		}
	}
	for i, from := range f.GetSshFrom() {
		checkSource(d, at("spec.firewall.sshFrom", i), from, pool, spec)
	}
	egress := f.GetEgress()
	d.unique("spec.firewall.egress", len(egress), func(i int) (string, string) { return "name", egress[i].Name })
	for i, r := range egress {
		p := at("spec.firewall.egress", i)
		for j, ports := range r.Ports {
			if _, _, ok := Ports(ports); !ok {
				d.complain(at(join(p, "ports"), j), portsHint, "%s is not a port or range of ports", show(ports))
			}
		}
		for j, to := range r.To {
			checkSource(d, at(join(p, "to"), j), to, pool, spec)
		}
	}
	if f.GetDisabled() && (len(rules) > 0 || len(egress) > 0) {
		d.complain("spec.firewall.disabled", "remove it, or the rules", "a firewall that is disabled has no rules")
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
		d.complain(p, portsHint, "%s is not a port or range of ports", show(text))
	case protocol != "udp" && first <= CanaryPort && CanaryPort <= last:
		d.complain(p, otherPort(first, last), "port %d cannot be opened: machines prove with it that the firewall drops what no rule allows", CanaryPort)
	case protocol != "udp" && first <= ConfirmPort && ConfirmPort <= last:
		d.complain(p, otherPort(first, last), "port %d cannot be opened or dropped: machines are called on it to confirm that a change has not cut them off", ConfirmPort)
	}
}

func otherPort(first, last uint16) string {
	if first < last {
		return "leave it out of the range, as with two ranges"
	}
	return "use another port"
}

// checkSource checks a word of FirewallRule.from or EgressRule.to.
func checkSource(d *document, p, text, pool string, spec *provisionrv1.PoolSpec) {
	kind, name, named := strings.Cut(text, ":")
	switch {
	case text == "any", text == "network", text == "self":
		return
	case text == "vpn":
		if spec.GetVpn() == nil {
			d.complain(p, "attach the pool to one, as with spec.vpn: {name: ...}", "the pool has no vpn")
		}
		return
	case named && (kind == "pool" || kind == "role"):
		if toLabel(name) != name || name == "" {
			d.complain(p, "as "+kind+":web", "%s does not name a %s", show(text), kind)
		}
		return
	case named && kind == "machine":
		if toLabel(name) != name || !looksLikeSlot.MatchString(name) {
			d.complain(p, "as machine:web-1", "%s does not name a machine", show(text))
		} else if of, index := poolOfSlot(name); of == pool && index > uint64(spec.Size) {
			d.complain(p, "", "%s does not exist: the pool has size %d", name, spec.Size)
		}
		return
	}
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			d.complain(p, sourceHint, "%s is not a range of addresses", show(text))
		case prefix.Masked() != prefix:
			d.complain(p, "as "+prefix.Masked().String(), "%s has bits set after its prefix", show(text))
		case prefix.Bits() == 0:
			d.complain(p, "write any", "%s is everybody", show(text))
		}
		return
	}
	if a, err := netip.ParseAddr(text); err != nil || a.Zone() != "" {
		if n := near(text, []string{"any", "network", "self", "vpn"}); n != "" {
			d.complain(p, n, "%s is not a source", show(text))
			return
		}
		d.complain(p, sourceHint, "%s is not a source", show(text))
	}
}

// poolOfSlot takes the name of a machine apart. Index is 0 for a name that is none.
func poolOfSlot(slot string) (pool string, index uint64) {
	i := strings.LastIndexByte(slot, '-')
	if i < 0 {
		return "", 0
	}
	index, _ = strconv.ParseUint(slot[i+1:], 10, 32)
	return slot[:i], index
}
