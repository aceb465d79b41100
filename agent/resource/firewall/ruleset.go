package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/internal/errs"
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
`

const inputNeeded = `		icmp type @icmp_needed accept
		icmpv6 type @icmp6_needed accept
		udp sport 67 udp dport 68 accept comment "dhcp"
		ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept comment "dhcp6"
`

const inputTail = `		counter name "in-refused"
	}
`

// ruleset is the table as desired.
type ruleset struct {
	// sets, counters and chains are text in the language of nft(8); members are apart from them.
	sets, counters, chains string
	members                []memberSet
}

// memberSet is a named set of addresses that come and go without anybody changing the policy.
type memberSet struct {
	name      string
	addresses []netip.Addr
}

// isMembers reports whether a set of our table is a memberSet.
func isMembers(name string) bool {
	for _, prefix := range []string{"pool4_", "pool6_", "hosts4_", "hosts6_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// text returns what replaces the table. Without members it is what identifies the policy. Equal states give equal text.
func (r *ruleset) text(members bool) string {
	var b strings.Builder
	b.WriteString(remove + "table inet " + table + " {\n" + base + r.sets)
	for _, s := range r.members {
		kind := "ipv4_addr"
		if strings.Contains(s.name[:strings.IndexByte(s.name, '_')], "6") {
			kind = "ipv6_addr"
		}
		fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.name, kind)
		if members && len(s.addresses) > 0 {
			fmt.Fprintf(&b, "\t\telements = { %s }\n", join(s.addresses))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString(r.counters + r.chains + "}\n")
	return b.String()
}

func join(list []netip.Addr) string {
	text := make([]string, len(list))
	for i, a := range list {
		text[i] = a.String()
	}
	return strings.Join(text, ", ")
}

// delta returns what makes the members of the table in the kernel the desired ones, in the language of nft, and the same for
// people. Both are empty where nothing differs.
func (r *ruleset) delta(now map[string][]netip.Addr) (script, diff string) {
	var b, d strings.Builder
	for _, s := range r.members {
		gone, come := missing(now[s.name], s.addresses), missing(s.addresses, now[s.name])
		for _, change := range []struct {
			verb, sign string
			list       []netip.Addr
		}{{"delete", "-", gone}, {"add", "+", come}} {
			if len(change.list) > 0 {
				fmt.Fprintf(&b, "%s element inet %s %s { %s }\n", change.verb, table, s.name, join(change.list))
				fmt.Fprintf(&d, "%s%s: %s\n", change.sign, s.name, join(change.list))
			}
		}
	}
	if b.Len() == 0 {
		return "", ""
	}
	return b.String(), "table inet " + table + " members:\n" + strings.TrimSuffix(d.String(), "\n")
}

// missing returns what is in a and not in b; both are sorted.
func missing(a, b []netip.Addr) []netip.Addr {
	var list []netip.Addr
	for _, x := range a {
		if _, found := slices.BinarySearchFunc(b, x, netip.Addr.Compare); !found {
			list = append(list, x)
		}
	}
	return list
}

// render makes the table of a state. What the machine itself knows of its ways out is in e.
func render(s *desired.State, e exits) (*ruleset, error) {
	w := &writer{state: s, result: &ruleset{}}
	if err := w.input(); err != nil {
		return nil, err
	}
	w.forward()
	if len(s.Pool.GetFirewall().GetEgress()) > 0 {
		if err := w.output(e); err != nil {
			return nil, err
		}
	}
	w.result.sets, w.result.counters, w.result.chains = w.sets.String(), w.counters.String(), w.chains.String()
	return w.result, nil
}

// input writes the inbound policy. Rules that drop come before everything that allows new connections.
func (w *writer) input() error {
	m := w.state.Machine
	w.counter("in-refused")
	w.chains.WriteString(inputHead)
	rules := w.state.Pool.GetFirewall().GetRules()
	for _, drop := range []bool{true, false} {
		if !drop {
			w.chains.WriteString(inputNeeded)
			if err := w.rule(inbound, "confirm", confirmRule(m)); err != nil {
				return err
			}
			if v := m.GetVpn(); v != nil {
				fmt.Fprintf(&w.chains, "\t\tudp dport %d counter name %q accept comment \"vpn\"\n", vpnPort(v), w.counter("in-vpn"))
			}
		}
		for i, r := range rules {
			if r.Drop != drop {
				continue
			}
			if err := w.rule(inbound, fmt.Sprintf("rule%d", i), r); err != nil {
				return errs.New(errs.Invalid, "cannot make firewall rule %q: %w", r.Name, err)
			}
		}
	}
	w.chains.WriteString(inputTail)
	return nil
}

// forward writes what gateways and relays of a VPN let through, and nothing on other machines: whoever forwards there has
// its own rules. Hosts behind a gateway need not know of the VPN, because what goes out to them has the gateway's address.
func (w *writer) forward() {
	v := w.state.Machine.GetVpn()
	if v == nil || !v.Gateway && !v.Relay {
		return
	}
	w.chains.WriteString("\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t\tct state established,related accept\n")
	if v.Relay {
		fmt.Fprintf(&w.chains, "\t\tiifname %q oifname %q counter name %q accept comment \"relay\"\n", vpnLink, vpnLink, w.counter("vpn-relay"))
	}
	v4, v6, err := sources(v.Routes)
	if !v.Gateway || err != nil {
		v4, v6 = nil, nil
	}
	var masquerade strings.Builder
	for _, f := range []struct {
		family string
		ranges []netip.Prefix
	}{{"4", v4}, {"6", v6}} {
		if len(f.ranges) == 0 {
			continue
		}
		ip := map[string]string{"4": "ip", "6": "ip6"}[f.family]
		set := w.set("vpn_routes"+f.family, "ipv"+f.family+"_addr", f.ranges)
		fmt.Fprintf(&w.chains, "\t\tiifname %q %s daddr %s counter name %q accept comment \"gateway\"\n", vpnLink, ip, set, w.counter("vpn-gateway"))
		fmt.Fprintf(&w.chains, "\t\toifname %q %s saddr %s counter name %q accept comment \"gateway\"\n", vpnLink, ip, set, w.counter("vpn-gateway"))
		if p, err := netip.ParsePrefix(v.Cidr); err == nil && p.Addr().Is4() == (f.family == "4") {
			fmt.Fprintf(&masquerade, "\t\t%s saddr %s oifname != %q %s daddr %s masquerade comment \"gateway\"\n", ip, p.Masked(), vpnLink, ip, set)
		}
	}
	w.chains.WriteString("\t}\n")
	if masquerade.Len() > 0 {
		w.chains.WriteString("\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n" + masquerade.String() + "\t}\n")
	}
}
