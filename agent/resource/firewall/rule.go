package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// confirmPort is where the agent greets whoever confirms that a change did not cut the machine off.
	confirmPort = 7446
	// vpnLink is the interface of the VPN.
	vpnLink = "pvn0"
	// defaultVPNPort is WireGuard's own.
	defaultVPNPort = 51820
)

// confirmRule allows the confirmation from the machine's own network, its pool and the servers.
func confirmRule(m *agentv1.MachineComponent) *agentv1.FirewallRule {
	r := &agentv1.FirewallRule{
		Name: "confirm", Protocol: "tcp", Ports: []*agentv1.PortRange{{First: confirmPort, Last: confirmPort}},
		Cidrs: slices.Clone(m.GetServerRanges()),
	}
	if m.GetCidr() != "" {
		r.Cidrs = append(r.Cidrs, m.GetCidr())
	}
	if m.GetPool() != "" {
		r.Pools = []string{m.GetPool()}
	}
	return r
}

func vpnPort(v *agentv1.VpnMember) uint32 {
	if v.Port == 0 {
		return defaultVPNPort
	}
	return v.Port
}

// direction is how rules of a chain name the other end.
type direction struct {
	// address is saddr or daddr, link iifname or oifname; prefix begins the names of counters.
	address, link, prefix string
}

var (
	inbound  = direction{"saddr", "iifname", "in-"}
	outbound = direction{"daddr", "oifname", "out-"}
)

type writer struct {
	state  *desired.State
	result *ruleset
	// sets, counters and chains become those of result.
	sets, counters, chains strings.Builder
	// named are the counters and sets of members that are written already.
	named []string
}

// rule writes the lines of a rule. Key is unique to it and names its sets.
func (w *writer) rule(d direction, key string, r *agentv1.FirewallRule) error {
	if r.Protocol != "tcp" && r.Protocol != "udp" {
		return fmt.Errorf("unknown protocol %q", r.Protocol)
	}
	ports, err := w.ports(key, r.Ports)
	if err != nil {
		return err
	}
	verdict, prefix := "accept", d.prefix
	if r.Drop {
		verdict, prefix = "drop", "drop-"
	}
	counter := w.counter(prefix + comment(r.Name))
	line := func(other string) {
		fmt.Fprintf(&w.chains, "\t\t%s%s dport %s counter name %q %s comment %q\n", other, r.Protocol, ports, counter, verdict, comment(r.Name))
	}
	v4, v6, err := sources(r.Cidrs)
	if err != nil {
		return err
	}
	any4, any6 := isAny(v4), isAny(v6)
	switch {
	case any4 && any6:
		line("")
	case any4:
		line("meta nfproto ipv4 ")
	case any6:
		line("meta nfproto ipv6 ")
	}
	if len(v4) > 0 && !any4 {
		line("ip " + d.address + " " + w.set(key+"_4", "ipv4_addr", v4) + " ")
	}
	if len(v6) > 0 && !any6 {
		line("ip6 " + d.address + " " + w.set(key+"_6", "ipv6_addr", v6) + " ")
	}
	for _, pool := range r.Pools {
		if !validName(pool) {
			return fmt.Errorf("bad pool name %q", pool)
		}
		w.members("pool", pool, addressesOf(w.state.Members[pool], nil))
		line("ip " + d.address + " @pool4_" + pool + " ")
		line("ip6 " + d.address + " @pool6_" + pool + " ")
	}
	if len(r.Machines) > 0 {
		var list []string
		for _, members := range w.state.Members {
			list = append(list, addressesOf(members, r.Machines)...)
		}
		w.members("hosts", key, list)
		line("ip " + d.address + " @hosts4_" + key + " ")
		line("ip6 " + d.address + " @hosts6_" + key + " ")
	}
	if p, err := netip.ParsePrefix(w.state.Machine.GetVpn().GetCidr()); r.Vpn && err == nil {
		line(fmt.Sprintf("%s %q %s %s %s ", d.link, vpnLink, map[bool]string{true: "ip", false: "ip6"}[p.Addr().Is4()], d.address, p.Masked()))
	}
	return nil
}

// addressesOf returns the addresses of members, or of those with given slots.
func addressesOf(members []*agentv1.Member, slots []string) []string {
	var list []string
	for _, m := range members {
		if m.Address != "" && (slots == nil || slices.Contains(slots, m.Name)) {
			list = append(list, m.Address)
		}
	}
	return list
}

// counter declares a named counter, once, and returns its name.
func (w *writer) counter(name string) string {
	if !slices.Contains(w.named, name) {
		w.named = append(w.named, name)
		fmt.Fprintf(&w.counters, "\tcounter %s {\n\t}\n", name)
	}
	return name
}

// members declares the two sets of addresses that a group of machines has, once.
func (w *writer) members(kind, name string, addresses []string) {
	var v4, v6 []netip.Addr
	for _, text := range addresses {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil: // validated before; a name is no address
		case a.Unmap().Is4():
			v4 = append(v4, a.Unmap())
		default:
			v6 = append(v6, a.WithZone(""))
		}
	}
	for _, s := range []memberSet{{kind + "4_" + name, v4}, {kind + "6_" + name, v6}} {
		if slices.Contains(w.named, s.name) {
			continue
		}
		w.named = append(w.named, s.name)
		slices.SortFunc(s.addresses, netip.Addr.Compare)
		s.addresses = slices.Compact(s.addresses)
		w.result.members = append(w.result.members, s)
	}
}

// set returns an expression for several values: the one value, or a named set. Sets without a name would get theirs from
// the kernel.
func (w *writer) set(name, kind string, values []netip.Prefix) string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = v.String()
	}
	return w.namedSet(name, kind, list)
}

func (w *writer) namedSet(name, kind string, list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	fmt.Fprintf(&w.sets, "\tset %s {\n\t\ttype %s\n\t\tflags interval\n\t\telements = { %s }\n\t}\n", name, kind, strings.Join(list, ", "))
	return "@" + name
}

// ports returns an expression for the ranges, joined where they overlap or touch.
func (w *writer) ports(key string, ranges []*agentv1.PortRange) (string, error) {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b *agentv1.PortRange) int { return int(a.First) - int(b.First) })
	var joined [][2]uint32
	for _, r := range sorted {
		if r.First < 1 || r.Last > 65535 || r.First > r.Last {
			return "", fmt.Errorf("bad ports %d-%d", r.First, r.Last)
		}
		if n := len(joined); n > 0 && r.First <= joined[n-1][1]+1 {
			joined[n-1][1] = max(joined[n-1][1], r.Last)
		} else {
			joined = append(joined, [2]uint32{r.First, r.Last})
		}
	}
	if len(joined) == 0 {
		return "", fmt.Errorf("no ports")
	}
	var list []string
	for _, r := range joined {
		if r[0] == r[1] {
			list = append(list, fmt.Sprint(r[0]))
		} else {
			list = append(list, fmt.Sprintf("%d-%d", r[0], r[1]))
		}
	}
	return w.namedSet(key+"_ports", "inet_service", list), nil
}

// sources parses ranges, sorted and without those that another one contains: nft refuses overlaps.
func sources(cidrs []string) (v4, v6 []netip.Prefix, err error) {
	var all []netip.Prefix
	for _, c := range cidrs {
		p, err := netip.ParsePrefix(c)
		if err != nil {
			a, err2 := netip.ParseAddr(c)
			if err2 != nil {
				return nil, nil, fmt.Errorf("bad range %q", c)
			}
			p = netip.PrefixFrom(a.WithZone(""), a.BitLen())
		}
		all = append(all, p.Masked())
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if a.Bits() != b.Bits() {
			return a.Bits() - b.Bits()
		}
		return a.Addr().Compare(b.Addr())
	})
	for _, p := range all {
		list := &v6
		if p.Addr().Is4() {
			list = &v4
		}
		if !slices.ContainsFunc(*list, func(wider netip.Prefix) bool { return wider.Contains(p.Addr()) }) {
			*list = append(*list, p)
		}
	}
	return v4, v6, nil
}

func isAny(list []netip.Prefix) bool { return len(list) == 1 && list[0].Bits() == 0 }

// validName guards the language of nft against names that admission would have refused.
func validName(s string) bool {
	return s != "" && len(s) <= 63 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

func comment(name string) string {
	if validName(name) {
		return name
	}
	return "rule"
}
