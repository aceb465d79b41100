package ec2test

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

type xmlPermission struct {
	Protocol string      `xml:"ipProtocol"`
	From     *int        `xml:"fromPort"`
	To       *int        `xml:"toPort"`
	Groups   []xmlPair   `xml:"groups>item"`
	Ranges   []xmlRange  `xml:"ipRanges>item"`
	Ranges6  []xmlRange6 `xml:"ipv6Ranges>item"`
}

type xmlPair struct {
	Owner       string `xml:"userId"`
	ID          string `xml:"groupId"`
	Description string `xml:"description,omitempty"`
}

type xmlRange struct {
	CIDR        string `xml:"cidrIp"`
	Description string `xml:"description,omitempty"`
}

type xmlRange6 struct {
	CIDR        string `xml:"cidrIpv6"`
	Description string `xml:"description,omitempty"`
}

// permissions groups rules by protocol and ports, as descriptions of groups have them.
func (c *call) permissions(rules []*rule, egress bool) []xmlPermission {
	var out []xmlPermission
	index := make(map[string]int)
	for _, r := range rules {
		if r.egress != egress {
			continue
		}
		key := fmt.Sprint(r.protocol, r.from, r.to)
		at, ok := index[key]
		if !ok {
			at = len(out)
			index[key] = at
			p := xmlPermission{Protocol: r.protocol}
			if r.protocol != "-1" {
				p.From, p.To = &r.from, &r.to
			}
			out = append(out, p)
		}
		switch p := &out[at]; {
		case r.source != nil:
			p.Groups = append(p.Groups, xmlPair{c.server.config.Account, r.source.id, r.description})
		case strings.Contains(r.cidr, ":"):
			p.Ranges6 = append(p.Ranges6, xmlRange6{r.cidr, r.description})
		default:
			p.Ranges = append(p.Ranges, xmlRange{r.cidr, r.description})
		}
	}
	return out
}

type xmlRule struct {
	ID          string   `xml:"securityGroupRuleId"`
	Group       string   `xml:"groupId"`
	Owner       string   `xml:"groupOwnerId"`
	Egress      bool     `xml:"isEgress"`
	Protocol    string   `xml:"ipProtocol"`
	From        int      `xml:"fromPort"`
	To          int      `xml:"toPort"`
	CIDR        string   `xml:"cidrIpv4,omitempty"`
	CIDR6       string   `xml:"cidrIpv6,omitempty"`
	Source      *xmlPeer `xml:"referencedGroupInfo"`
	Description string   `xml:"description,omitempty"`
	Tags        *xmlTags `xml:"tagSet"`
}

type xmlPeer struct {
	ID    string `xml:"groupId"`
	Owner string `xml:"userId"`
}

func (c *call) xmlRule(r *rule, at time.Time) xmlRule {
	account := c.server.config.Account
	x := xmlRule{
		ID: r.id, Group: r.group.id, Owner: account, Egress: r.egress, Protocol: r.protocol, From: r.from, To: r.to,
		Description: r.description, Tags: tagSet(r.tags.at(at)),
	}
	switch {
	case r.source != nil:
		x.Source = &xmlPeer{r.source.id, account}
	case strings.Contains(r.cidr, ":"):
		x.CIDR6 = r.cidr
	default:
		x.CIDR = r.cidr
	}
	return x
}

type describeRulesIn struct {
	DryRun               bool
	Filters              []filter
	SecurityGroupRuleIds []string
	MaxResults           *int
	NextToken            *string
}

type describeRulesOut struct {
	Rules []xmlRule `xml:"securityGroupRuleSet>item"`
	Next  string    `xml:"nextToken,omitempty"`
}

func (r *rule) attr(name string) ([]string, bool) {
	switch name {
	case "group-id":
		return []string{r.group.id}, true
	case "security-group-rule-id":
		return []string{r.id}, true
	}
	return nil, false
}

func describeRules(c *call, in *describeRulesIn) (any, *apiError) {
	if refused := c.checkFilters(in.Filters, (&rule{group: new(group)}).attr); refused != nil {
		return nil, refused
	}
	var found []*rule
	for _, id := range in.SecurityGroupRuleIds {
		r, refused := c.rule(id)
		if refused != nil {
			return nil, refused
		}
		found = append(found, r)
	}
	if len(in.SecurityGroupRuleIds) == 0 {
		for _, r := range c.server.rules {
			if r.existsAt(c.seen) {
				found = append(found, r)
			}
		}
	}
	found = slices.DeleteFunc(found, func(r *rule) bool { return !c.match(in.Filters, r.tags.at(c.seen), r.attr) })
	found, next, refused := cutPage(c, page{in.MaxResults, in.NextToken}, [2]int{5, 1000}, found, func(r *rule) string { return r.id })
	if refused != nil {
		return nil, refused
	}
	out := describeRulesOut{Next: next}
	for _, r := range found {
		out.Rules = append(out.Rules, c.xmlRule(r, c.seen))
	}
	return out, nil
}
