package gce

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/api/compute/v1"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	allowPriority = 1000
	denyPriority  = 1001
	// icmp6 has no name in the API, just its number (IANA protocol numbers).
	icmp6 = "58"
	// poolSource marks a source that is a pool's tag, denySource a rule that denies.
	poolSource = "pool:"
	denySource = "deny:"
)

// wanted are the rules of a group: one for each source, and the denials.
func (p *Provider) wanted(f provider.Firewall) []*compute.Firewall {
	network := p.networkLink(f.Network)
	bySource := map[string]*compute.Firewall{}
	var all []*compute.Firewall
	for _, r := range f.Rules {
		source := r.From.Masked().String()
		if r.Pool != "" {
			source = poolSource + r.Pool
		}
		x := bySource[source]
		if x == nil {
			x = p.rule(f.Pool, network, source, allowPriority)
			if r.Pool != "" {
				x.SourceTags = []string{tag(p.cluster, r.Pool)}
			} else {
				x.SourceRanges = []string{source}
			}
			bySource[source] = x
			all = append(all, x)
		}
		protocol := protocolOf(r)
		var ports []string
		switch {
		case protocol != "tcp" && protocol != "udp" || r.First == 0 && r.Last == 0:
		case r.First == r.Last:
			ports = []string{strconv.Itoa(int(r.First))}
		default:
			ports = []string{fmt.Sprintf("%d-%d", r.First, r.Last)}
		}
		i := slices.IndexFunc(x.Allowed, func(a *compute.FirewallAllowed) bool {
			return a.IPProtocol == protocol && (len(a.Ports) > 0) == (len(ports) > 0)
		})
		if i < 0 {
			x.Allowed = append(x.Allowed, &compute.FirewallAllowed{IPProtocol: protocol, Ports: ports})
		} else {
			x.Allowed[i].Ports = append(x.Allowed[i].Ports, ports...)
		}
	}
	for _, x := range all {
		slices.SortFunc(x.Allowed, func(a, b *compute.FirewallAllowed) int { return cmp.Compare(a.IPProtocol, b.IPProtocol) })
		for _, a := range x.Allowed {
			slices.Sort(a.Ports)
			a.Ports = slices.Compact(a.Ports)
		}
	}
	return append(all, p.denials(f.Pool, network)...)
}

// denials of a group: all that no rule allows.
func (p *Provider) denials(pool, network string) []*compute.Firewall {
	var all []*compute.Firewall
	for _, everywhere := range []string{"0.0.0.0/0", "::/0"} {
		x := p.rule(pool, network, denySource+everywhere, denyPriority)
		x.SourceRanges, x.Denied = []string{everywhere}, []*compute.FirewallDenied{{IPProtocol: "all"}}
		all = append(all, x)
	}
	return all
}

// rule is a rule without its sources and protocols. Its name is made from what cannot be changed later.
func (p *Provider) rule(pool, network, source string, priority int64) *compute.Firewall {
	return &compute.Firewall{
		Name:        namePrefix + hash(p.cluster, p.region)[:10] + "-" + hash(pool)[:10] + "-" + hash(network, source)[:12],
		Description: fmt.Sprintf("provisionr cluster=%s region=%s pool=%s from=%s", p.cluster, p.region, pool, source),
		Network:     network, Direction: "INGRESS", Priority: priority, TargetTags: []string{tag(p.cluster, pool)},
		ForceSendFields: []string{"Disabled"},
	}
}

// description is what a rule's description says of it.
type description struct{ pool, from string }

// described reads the description of a rule of this cluster and region.
func (p *Provider) described(x *compute.Firewall) (description, bool) {
	words := strings.Fields(x.Description)
	if len(words) != 5 || words[0] != "provisionr" || words[1] != "cluster="+p.cluster || words[2] != "region="+p.region {
		return description{}, false
	}
	pool, one := strings.CutPrefix(words[3], "pool=")
	from, two := strings.CutPrefix(words[4], "from=")
	return description{pool, from}, one && two && slices.Equal(x.TargetTags, []string{tag(p.cluster, pool)})
}

// poolsByTag are the pools of this cluster that have rules or are named by them.
func (p *Provider) poolsByTag(all []*compute.Firewall) map[string]string {
	pools := map[string]string{}
	for _, x := range all {
		if d, ok := p.described(x); ok {
			pools[tag(p.cluster, d.pool)] = d.pool
			if source, ok := strings.CutPrefix(d.from, poolSource); ok {
				pools[tag(p.cluster, source)] = source
			}
		}
	}
	return pools
}

// rulesOf says what a rule of the API allows, in our terms.
func rulesOf(x *compute.Firewall, pools map[string]string) []provider.FirewallRule {
	var rules []provider.FirewallRule
	if x.Disabled {
		return nil
	}
	var sources []provider.FirewallRule
	for _, text := range x.SourceRanges {
		if from, err := netip.ParsePrefix(text); err == nil {
			sources = append(sources, provider.FirewallRule{From: from})
		}
	}
	for _, source := range x.SourceTags {
		sources = append(sources, provider.FirewallRule{Pool: cmp.Or(pools[source], source)})
	}
	for _, r := range sources {
		for _, a := range x.Allowed {
			if r.Protocol = a.IPProtocol; r.Protocol == icmp6 {
				r.Protocol = "icmp6"
			}
			r.First, r.Last = 0, 0
			if len(a.Ports) == 0 {
				rules = append(rules, r)
			}
			for _, ports := range a.Ports {
				first, last, _ := strings.Cut(ports, "-")
				from, _ := strconv.ParseUint(first, 10, 16)
				to, _ := strconv.ParseUint(cmp.Or(last, first), 10, 16)
				r.First, r.Last = uint16(from), uint16(to)
				rules = append(rules, r)
			}
		}
	}
	return rules
}

// normal is a rule as rulesOf would return it.
func normal(r provider.FirewallRule) provider.FirewallRule {
	if r.Pool != "" {
		r.From = netip.Prefix{}
	} else {
		r.From = r.From.Masked()
	}
	if r.Protocol = protocolOf(r); r.Protocol == icmp6 {
		r.Protocol = "icmp6"
	}
	if r.Protocol != "tcp" && r.Protocol != "udp" {
		r.First, r.Last = 0, 0
	}
	return r
}

// protocolOf is the API's name: ICMP of an IPv6 source is another protocol.
func protocolOf(r provider.FirewallRule) string {
	if r.Protocol == "icmp6" || r.Protocol == "icmp" && r.Pool == "" && r.From.Addr().Is6() {
		return icmp6
	}
	return r.Protocol
}

// same tells whether a rule of the API is as wanted; order does not matter to it.
func same(x, wanted *compute.Firewall) bool {
	return !x.Disabled && x.Priority == wanted.Priority && x.Description == wanted.Description && path(x.Network) == path(wanted.Network) &&
		alike(x.SourceRanges, wanted.SourceRanges) && alike(x.SourceTags, wanted.SourceTags) && alike(x.TargetTags, wanted.TargetTags) &&
		len(x.SourceServiceAccounts) == 0 && len(x.TargetServiceAccounts) == 0 && len(x.DestinationRanges) == 0 &&
		alike(allowed(x), allowed(wanted)) && len(x.Denied) == len(wanted.Denied)
}

func allowed(x *compute.Firewall) []string {
	return namesOf(x.Allowed, func(a *compute.FirewallAllowed) string {
		return strings.ToLower(a.IPProtocol) + " " + strings.Join(slices.Sorted(slices.Values(a.Ports)), ",")
	})
}

func alike(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// networkLink is the URL of a network from projects/ on.
func (p *Provider) networkLink(n *provisionrv1.Network) string {
	id := cmp.Or(n.GetSpec().GetId(), defaultNetwork)
	if strings.Contains(id, "projects/") {
		return path(id)
	}
	return "projects/" + p.project + "/global/networks/" + base(id)
}
