package aws

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/provisionr/provisionr/server/provider"
)

// rule is one ingress rule of a security group with one source, in the form in which EC2 gives it back: it can be compared.
type rule struct {
	protocol string // tcp, udp, icmp, icmpv6 or -1 for all
	from, to int32  // ports; -1 for none or all types of ICMP
	cidr     string
	group    string // id of the source group
	owner    string // account of the source group, where that is another one
	list     string // id of the source prefix list, which only others add
}

// noPort stands for all types of ICMP and for all ports of all protocols.
const noPort = -1

// ruleOf translates a rule; groups has the ids of the pools' groups.
func ruleOf(r provider.FirewallRule, groups map[string]string) (rule, error) {
	var out rule
	switch r.Protocol {
	case "tcp", "udp":
		out = rule{protocol: r.Protocol, from: int32(r.First), to: int32(r.Last)}
		if r.First == 0 && r.Last == 0 {
			out.to = 65535
		}
	case "icmp":
		out = rule{protocol: "icmp", from: noPort, to: noPort}
	case "icmp6":
		out = rule{protocol: "icmpv6", from: noPort, to: noPort}
	case "all":
		out = rule{protocol: "-1", from: noPort, to: noPort}
	default:
		return out, provider.Errorf(provider.Invalid, "security groups know no protocol %q", r.Protocol)
	}
	switch {
	case r.Pool != "":
		out.group = groups[r.Pool]
	case r.From.IsValid():
		out.cidr = r.From.Masked().String()
	default:
		return out, provider.Errorf(provider.Invalid, "a firewall rule has no source")
	}
	return out, nil
}

// rulesOf takes the permissions of a group apart, one rule for each source.
func rulesOf(permissions []types.IpPermission, account string) []rule {
	var all []rule
	for _, p := range permissions {
		base := rule{protocol: awssdk.ToString(p.IpProtocol), from: noPort, to: noPort}
		switch base.protocol {
		case "58":
			base.protocol = "icmpv6"
		case "1":
			base.protocol = "icmp"
		case "6":
			base.protocol = "tcp"
		case "17":
			base.protocol = "udp"
		}
		if p.FromPort != nil && base.protocol != "-1" {
			base.from = *p.FromPort
		}
		if p.ToPort != nil && base.protocol != "-1" {
			base.to = *p.ToPort
		}
		add := func(change func(*rule)) {
			r := base
			change(&r)
			all = append(all, r)
		}
		for _, s := range p.IpRanges {
			add(func(r *rule) { r.cidr = awssdk.ToString(s.CidrIp) })
		}
		for _, s := range p.Ipv6Ranges {
			add(func(r *rule) { r.cidr = canonical(awssdk.ToString(s.CidrIpv6)) })
		}
		for _, s := range p.UserIdGroupPairs {
			add(func(r *rule) {
				r.group = awssdk.ToString(s.GroupId)
				if owner := awssdk.ToString(s.UserId); owner != account && account != "" {
					r.owner = owner
				}
			})
		}
		for _, s := range p.PrefixListIds {
			add(func(r *rule) { r.list = awssdk.ToString(s.PrefixListId) })
		}
	}
	return all
}

// canonical writes an IPv6 range as package netip does, so that two spellings compare as one.
func canonical(cidr string) string {
	if prefix, err := netip.ParsePrefix(cidr); err == nil {
		return prefix.Masked().String()
	}
	return cidr
}

// permission is the rule as a call takes it.
func (r rule) permission() types.IpPermission {
	p := types.IpPermission{IpProtocol: awssdk.String(r.protocol)}
	if r.protocol != "-1" {
		p.FromPort, p.ToPort = awssdk.Int32(r.from), awssdk.Int32(r.to)
	}
	prefix, err := netip.ParsePrefix(r.cidr)
	switch {
	case r.group != "":
		pair := types.UserIdGroupPair{GroupId: awssdk.String(r.group)}
		if r.owner != "" {
			pair.UserId = awssdk.String(r.owner)
		}
		p.UserIdGroupPairs = []types.UserIdGroupPair{pair}
	case r.list != "":
		p.PrefixListIds = []types.PrefixListId{{PrefixListId: awssdk.String(r.list)}}
	case err == nil && prefix.Addr().Is6():
		p.Ipv6Ranges = []types.Ipv6Range{{CidrIpv6: awssdk.String(r.cidr)}}
	default:
		p.IpRanges = []types.IpRange{{CidrIp: awssdk.String(r.cidr)}}
	}
	return p
}

func permissions(rules []rule) []types.IpPermission {
	var all []types.IpPermission
	for _, r := range rules {
		all = append(all, r.permission())
	}
	return all
}

// diff returns what must be added to have, and what removed from it, to make it want; each in a fixed order.
func diff(have, want []rule) (add, remove []rule) {
	had, wanted := set(have), set(want)
	for r := range wanted {
		if !had[r] {
			add = append(add, r)
		}
	}
	for r := range had {
		if !wanted[r] {
			remove = append(remove, r)
		}
	}
	slices.SortFunc(add, compareRules)
	slices.SortFunc(remove, compareRules)
	return add, remove
}

func set(rules []rule) map[rule]bool {
	all := make(map[rule]bool, len(rules))
	for _, r := range rules {
		all[r] = true
	}
	return all
}

func compareRules(a, b rule) int {
	return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.cidr, b.cidr),
		cmp.Compare(a.group, b.group), cmp.Compare(a.owner, b.owner), cmp.Compare(a.list, b.list))
}

// describe is the rule for people, as provider.FirewallRule writes it; pools has the pools of group ids.
func (r rule) describe(pools map[string]string) string {
	out := provider.FirewallRule{Protocol: r.protocol}
	switch r.protocol {
	case "-1":
		out.Protocol = "all"
	case "icmpv6":
		out.Protocol = "icmp6"
	}
	if r.from >= 0 && (r.protocol == "tcp" || r.protocol == "udp") {
		out.First, out.Last = uint16(r.from), uint16(max(0, r.to))
	}
	if prefix, err := netip.ParsePrefix(r.cidr); err == nil {
		out.From = prefix
		return out.String()
	}
	source := cmp.Or(r.group, r.list)
	if pool := pools[r.group]; r.group != "" && pool != "" {
		out.Pool = pool
		return out.String()
	}
	out.Pool = "?"
	text := out.String()
	return text[:len(text)-len("pool ?")] + source
}

// inverted turns a map round.
func inverted(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out[m[key]] = key
	}
	return out
}

// groupName of a pool: unique in a network, at most 255 characters.
func groupName(cluster, pool string) string { return fmt.Sprintf("provisionr-%s-%s", cluster, pool) }
