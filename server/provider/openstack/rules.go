package openstack

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"

	"github.com/provisionr/provisionr/server/provider"
)

// rule is what a security group rule says, in one form for what Neutron tells in several: a rule is equal to another if
// and only if Neutron would refuse it as a duplicate.
type rule struct {
	direction, ether, protocol string
	first, last                int
	// prefix is empty for any address, group is the id of a group.
	prefix, group string
}

// outbound are the rules that Neutron gives a new group: all may leave.
var outbound = []rule{{direction: "egress", ether: "IPv4"}, {direction: "egress", ether: "IPv6"}}

// wanted are the rules of a pool's group. ids are the groups by pool; a pool without one gives a rule without a group's
// id, which a plan shows and Ensure never makes.
func wanted(all []provider.FirewallRule, ids func(pool string) string) []rule {
	want := slices.Clone(outbound)
	for _, f := range all {
		r := rule{direction: "ingress", protocol: f.Protocol, first: int(f.First), last: int(f.Last)}
		ethers := []string{"IPv4", "IPv6"}
		switch f.Protocol {
		case "all":
			r.protocol = ""
		case "icmp":
			ethers = ethers[:1]
		case "icmp6":
			r.protocol, ethers = "ipv6-icmp", ethers[1:]
		}
		if f.Pool != "" {
			r.group = ids(f.Pool)
		} else {
			prefix := f.From.Masked()
			// A protocol of the other family never comes from this range.
			family := "IPv4"
			if prefix.Addr().Is6() {
				family = "IPv6"
			}
			if !slices.Contains(ethers, family) {
				continue
			}
			ethers = []string{family}
			if prefix.Bits() > 0 {
				r.prefix = prefix.String()
			}
		}
		for _, ether := range ethers {
			one := r
			one.ether = ether
			if !slices.Contains(want, one) {
				want = append(want, one)
			}
		}
	}
	return want
}

// read brings a rule of Neutron's into our form.
func read(r rules.SecGroupRule) rule {
	one := rule{
		direction: r.Direction, ether: r.EtherType, protocol: strings.ToLower(r.Protocol), first: r.PortRangeMin, last: r.PortRangeMax,
		group: cmp.Or(r.RemoteGroupID, r.RemoteAddressGroupID),
	}
	switch one.protocol {
	case "any", "0":
		one.protocol = ""
	case "icmpv6", "58":
		one.protocol = "ipv6-icmp"
	case "icmp":
		if one.ether == "IPv6" {
			one.protocol = "ipv6-icmp"
		}
	case "1":
		one.protocol = "icmp"
	case "6":
		one.protocol = "tcp"
	case "17":
		one.protocol = "udp"
	}
	if prefix, err := netip.ParsePrefix(r.RemoteIPPrefix); err == nil && prefix.Bits() > 0 {
		one.prefix = prefix.Masked().String()
	} else if err != nil {
		one.prefix = r.RemoteIPPrefix
	}
	if (one.protocol == "tcp" || one.protocol == "udp") && one.first == 1 && one.last == 65535 {
		one.first, one.last = 0, 0 // the same as no ports
	}
	return one
}

// difference returns what is wanted and not there, and what is there and not wanted.
func difference(want []rule, there []rules.SecGroupRule) (missing []rule, extra []rules.SecGroupRule) {
	missing = slices.Clone(want)
	for _, r := range there {
		have := read(r)
		i := slices.IndexFunc(missing, func(w rule) bool { return normal(w) == have })
		if i < 0 {
			extra = append(extra, r)
			continue
		}
		missing = slices.Delete(missing, i, i+1)
	}
	return missing, extra
}

// normal is the rule as read would read it.
func normal(r rule) rule {
	if (r.protocol == "tcp" || r.protocol == "udp") && r.first == 1 && r.last == 65535 {
		r.first, r.last = 0, 0
	}
	return r
}

// body is the request that makes the rule in a group.
func (r rule) body(groupID string) rules.CreateOpts {
	return rules.CreateOpts{
		SecGroupID: groupID, Direction: rules.RuleDirection(r.direction), EtherType: rules.RuleEtherType(r.ether), Protocol: rules.RuleProtocol(r.protocol),
		PortRangeMin: r.first, PortRangeMax: r.last, RemoteIPPrefix: r.prefix, RemoteGroupID: r.group,
		Description: "made by provisionr",
	}
}

// text is the rule in the words of provider.FirewallRule. pools are the pools by group id.
func (r rule) text(pools func(group string) string) string {
	if r.direction == "egress" {
		return "allow outbound " + r.ether + strings.TrimRight(" "+r.protocol+" "+r.prefix+r.group, " ")
	}
	return r.firewall(pools).String()
}

// firewall is the inbound rule in provider's form.
func (r rule) firewall(pools func(group string) string) provider.FirewallRule {
	f := provider.FirewallRule{Protocol: r.protocol, First: uint16(r.first), Last: uint16(r.last)}
	switch r.protocol {
	case "":
		f.Protocol = "all"
	case "ipv6-icmp":
		f.Protocol = "icmp6"
	}
	switch {
	case r.group != "":
		f.Pool = pools(r.group)
	case r.prefix != "":
		f.From, _ = netip.ParsePrefix(r.prefix) // read has parsed it, or it shows as invalid
	case r.ether == "IPv6":
		f.From = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	default:
		f.From = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return f
}
