package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const table = "provisionr"

// remove makes sure that there is no table of ours: the first line makes the second succeed in any case.
const remove = "table inet " + table + "\ndelete table inet " + table + "\n"

// base is what every policy begins with. ICMP is what RFC 4890 section 4.4 and RFC 1122 section 3.2.2 have hosts accept.
const base = `	set icmp_needed {
		type icmp_type
		elements = { destination-unreachable, echo-request, time-exceeded, parameter-problem }
	}
	set icmp6_needed {
		type icmpv6_type
		elements = { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request, mld-listener-query, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert }
	}
`

const inputHead = `	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		tcp dport 7447 drop comment "deny proof"
		ct state established,related accept
		ct state invalid drop
		icmp type @icmp_needed accept
		icmpv6 type @icmp6_needed accept
		udp sport 67 udp dport 68 accept comment "dhcp"
		ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept comment "dhcp6"
`

// render returns the table in the language of nft(8). Equal states give equal text.
func render(s *desired.State) (string, error) {
	w := &writer{state: s}
	for i, r := range s.Pool.GetFirewall().GetRules() {
		if err := w.rule(i, r); err != nil {
			return "", errs.New(errs.Invalid, "cannot make firewall rule %q: %w", r.Name, err)
		}
	}
	for _, pool := range w.pools {
		w.members(pool)
	}
	return remove + "table inet " + table + " {\n" + base + w.sets.String() + inputHead + w.rules.String() + "\t}\n}\n", nil
}

type writer struct {
	state *desired.State
	// pools are those that rules name, in order of first mention.
	pools       []string
	sets, rules strings.Builder
}

func (w *writer) rule(i int, r *agentv1.FirewallRule) error {
	if r.Protocol != "tcp" && r.Protocol != "udp" {
		return fmt.Errorf("unknown protocol %q", r.Protocol)
	}
	ports, err := w.ports(i, r.Ports)
	if err != nil {
		return err
	}
	allow := func(from string) {
		fmt.Fprintf(&w.rules, "\t\t%s%s dport %s accept comment %q\n", from, r.Protocol, ports, comment(r.Name))
	}
	v4, v6, err := sources(r.Cidrs)
	if err != nil {
		return err
	}
	any4, any6 := isAny(v4), isAny(v6)
	switch {
	case any4 && any6:
		allow("")
	case any4:
		allow("meta nfproto ipv4 ")
	case any6:
		allow("meta nfproto ipv6 ")
	}
	if len(v4) > 0 && !any4 {
		allow("ip saddr " + w.set(fmt.Sprintf("rule%d_4", i), "ipv4_addr", v4) + " ")
	}
	if len(v6) > 0 && !any6 {
		allow("ip6 saddr " + w.set(fmt.Sprintf("rule%d_6", i), "ipv6_addr", v6) + " ")
	}
	for _, pool := range r.Pools {
		if !validName(pool) {
			return fmt.Errorf("bad pool name %q", pool)
		}
		if !slices.Contains(w.pools, pool) {
			w.pools = append(w.pools, pool)
		}
		allow("ip saddr @pool4_" + pool + " ")
		allow("ip6 saddr @pool6_" + pool + " ")
	}
	return nil
}

// set returns an expression for several values: the one value, or a named set. Sets without a name would get theirs from
// the kernel.
func (w *writer) set(name, kind string, values []netip.Prefix) string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = v.String()
	}
	return w.named(name, kind, list)
}

func (w *writer) named(name, kind string, list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	fmt.Fprintf(&w.sets, "\tset %s {\n\t\ttype %s\n\t\tflags interval\n\t\telements = { %s }\n\t}\n", name, kind, strings.Join(list, ", "))
	return "@" + name
}

// ports returns an expression for the ranges, joined where they overlap or touch.
func (w *writer) ports(i int, ranges []*agentv1.PortRange) (string, error) {
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
	return w.named(fmt.Sprintf("rule%d_ports", i), "inet_service", list), nil
}

// members writes the sets with the addresses of a pool's members.
func (w *writer) members(pool string) {
	var v4, v6 []netip.Addr
	for _, m := range w.state.Members[pool] {
		a, err := netip.ParseAddr(m.Address)
		switch {
		case err != nil: // no address yet
		case a.Is4():
			v4 = append(v4, a)
		default:
			v6 = append(v6, a.WithZone(""))
		}
	}
	for _, s := range []struct {
		name, kind string
		list       []netip.Addr
	}{{"pool4_" + pool, "ipv4_addr", v4}, {"pool6_" + pool, "ipv6_addr", v6}} {
		slices.SortFunc(s.list, netip.Addr.Compare)
		fmt.Fprintf(&w.sets, "\tset %s {\n\t\ttype %s\n", s.name, s.kind)
		if list := slices.Compact(s.list); len(list) > 0 {
			text := make([]string, len(list))
			for i, a := range list {
				text[i] = a.String()
			}
			fmt.Fprintf(&w.sets, "\t\telements = { %s }\n", strings.Join(text, ", "))
		}
		w.sets.WriteString("\t}\n")
	}
}

// sources parses ranges, sorted and without those that another one contains: nft refuses overlaps.
func sources(cidrs []string) (v4, v6 []netip.Prefix, err error) {
	var all []netip.Prefix
	for _, c := range cidrs {
		p, err := netip.ParsePrefix(c)
		if err != nil {
			a, err2 := netip.ParseAddr(c)
			if err2 != nil {
				return nil, nil, fmt.Errorf("bad source %q", c)
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
