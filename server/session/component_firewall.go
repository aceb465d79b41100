package session

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// ends resolves the words of FirewallRule.from and EgressRule.to for one pool.
type ends struct {
	// pool is the name of the pool, cidr the range of its machines' network, or empty.
	pool, cidr string
	// poolsOf returns the pools of a role.
	poolsOf func(role string) []string
}

// firewallOf puts the rule for ssh first: it is the one that nobody may lose.
func firewallOf(f *provisionrv1.Firewall, e ends) (*agentv1.Firewall, error) {
	out := &agentv1.Firewall{Enabled: !f.GetDisabled()}
	from := f.GetSshFrom()
	if len(from) == 0 {
		from = []string{"any"}
	}
	ssh := &agentv1.FirewallRule{Name: "ssh", Protocol: "tcp", Ports: []*agentv1.PortRange{{First: sshPort, Last: sshPort}}}
	if err := e.set(ssh, from); err != nil {
		return nil, err
	}
	out.Rules = append(out.Rules, ssh)
	for _, r := range f.GetRules() {
		rule, err := e.rule(r.GetName(), r.GetProtocol(), r.GetPorts(), r.GetFrom())
		if err != nil {
			return nil, err
		}
		rule.Drop = r.GetDrop()
		out.Rules = append(out.Rules, rule)
	}
	for _, r := range f.GetEgress() {
		rule, err := e.rule(r.GetName(), r.GetProtocol(), r.GetPorts(), r.GetTo())
		if err != nil {
			return nil, err
		}
		out.Egress = append(out.Egress, rule)
	}
	return out, nil
}

func (e ends) rule(name, protocol string, ports, others []string) (*agentv1.FirewallRule, error) {
	rule := &agentv1.FirewallRule{Name: name, Protocol: cmp.Or(protocol, "tcp")}
	for _, text := range ports {
		r, err := parsePorts(text)
		if err != nil {
			return nil, err
		}
		rule.Ports = append(rule.Ports, r)
	}
	return rule, e.set(rule, others)
}

// set resolves who or what is at the other end. What stands for nothing, as the network of a pool that has none, is nobody.
func (e ends) set(rule *agentv1.FirewallRule, others []string) error {
	for _, other := range others {
		kind, name, named := strings.Cut(other, ":")
		switch {
		case other == "any":
			rule.Cidrs = append(rule.Cidrs, "0.0.0.0/0", "::/0")
		case other == "self":
			rule.Pools = append(rule.Pools, e.pool)
		case other == "vpn":
			rule.Vpn = true
		case other == "network":
			if e.cidr != "" {
				rule.Cidrs = append(rule.Cidrs, e.cidr)
			}
		case named && kind == "pool":
			rule.Pools = append(rule.Pools, name)
		case named && kind == "role":
			rule.Pools = append(rule.Pools, e.poolsOf(name)...)
		case named && kind == "machine":
			rule.Machines = append(rule.Machines, name)
		default:
			prefix, err := parseSource(other)
			if err != nil {
				return errs.New(errs.Invalid, "%q in firewall rule %s is neither a word known nor an address nor a range", other, rule.Name)
			}
			rule.Cidrs = append(rule.Cidrs, prefix.String())
		}
	}
	for _, list := range []*[]string{&rule.Cidrs, &rule.Pools, &rule.Machines} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return nil
}

func parseSource(source string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(source); err == nil {
		addr = addr.Unmap().WithZone("")
		return addr.Prefix(addr.BitLen())
	}
	prefix, err := netip.ParsePrefix(source)
	return prefix.Masked(), err
}

func parsePorts(text string) (*agentv1.PortRange, error) {
	low, high, ok := strings.Cut(text, "-")
	if !ok {
		high = low
	}
	first, errFirst := strconv.ParseUint(low, 10, 16)
	last, errLast := strconv.ParseUint(high, 10, 16)
	if errFirst != nil || errLast != nil || first == 0 || last < first {
		return nil, errs.New(errs.Invalid, "ports %q are not a number or range within 1 to 65535", text)
	}
	return &agentv1.PortRange{First: uint32(first), Last: uint32(last)}, nil
}
