package ec2test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// rule of a security group. Ports are -1 where the protocol has none, and for ICMP the type and the code.
type rule struct {
	id               string
	group            *group
	egress           bool
	protocol         string
	from, to         int
	cidr             string
	source           *group
	description      string
	created, deleted time.Time
	tags             tagLog
}

func (r *rule) existsAt(t time.Time) bool {
	return !t.Before(r.created) && (r.deleted.IsZero() || t.Before(r.deleted))
}

// same says whether two rules allow the same; descriptions do not count.
func (r *rule) same(o *rule) bool {
	return r.group == o.group && r.egress == o.egress && r.protocol == o.protocol && r.from == o.from && r.to == o.to && r.cidr == o.cidr && r.source == o.source
}

func (r *rule) String() string {
	direction, peer, ports := "in", r.cidr, ""
	if r.egress {
		direction = "out"
	}
	if r.source != nil {
		peer = r.source.id
	}
	if r.protocol != "-1" {
		ports = fmt.Sprintf(" %d-%d", r.from, r.to)
	}
	return direction + " " + r.protocol + ports + " " + peer
}

func (c *call) rulesOf(g *group) []*rule {
	var rules []*rule
	for _, r := range c.server.rules {
		if r.group == g && r.existsAt(c.seen) {
			rules = append(rules, r)
		}
	}
	return rules
}

func (c *call) rule(id string) (*rule, *apiError) {
	for _, r := range c.server.rules {
		if r.id == id && r.existsAt(c.seen) && r.existsAt(c.now) {
			return r, nil
		}
	}
	return nil, refuse("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", id)
}

// permission is an IpPermission of a request.
type permission struct {
	FromPort, ToPort *int
	IpProtocol       *string
	IpRanges         []struct{ CidrIp, Description *string }
	Ipv6Ranges       []struct{ CidrIpv6, Description *string }
	UserIdGroupPairs []struct{ Description, GroupId, GroupName, UserId, VpcId *string }
}

type rulesIn struct {
	DryRun               bool
	GroupId, GroupName   *string
	IpPermissions        []permission
	TagSpecifications    []tagSpec
	SecurityGroupRuleIds []string
}

// Protocols that have names (IpPermission).
var protocolNames = map[string]string{"1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6"}

// expand makes the rules that a permission stands for.
func (c *call) expand(g *group, egress bool, p permission) ([]*rule, *apiError) {
	if p.IpProtocol == nil {
		return nil, c.wrong("MissingParameter", "The request must contain the parameter ipProtocol")
	}
	base := rule{group: g, egress: egress, protocol: *p.IpProtocol, from: -1, to: -1, created: c.now}
	if name, ok := protocolNames[base.protocol]; ok {
		base.protocol = name
	}
	if refused := base.ports(p); refused != nil {
		return nil, refused
	}
	var rules []*rule
	add := func(r rule, description *string) *apiError {
		if description != nil {
			r.description = *description
		}
		if !ruleText.MatchString(r.description) {
			return refuse("InvalidParameterValue", "Invalid rule description. Valid descriptions are strings less than 256 characters from the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*")
		}
		rules = append(rules, &r)
		return nil
	}
	for _, x := range p.IpRanges {
		r := base
		if r.cidr = cidr(x.CidrIp, false); r.cidr == "" {
			return nil, refuse("InvalidParameterValue", "CIDR block %s is malformed", text(x.CidrIp))
		}
		if refused := add(r, x.Description); refused != nil {
			return nil, refused
		}
	}
	for _, x := range p.Ipv6Ranges {
		r := base
		if r.cidr = cidr(x.CidrIpv6, true); r.cidr == "" {
			return nil, refuse("InvalidParameterValue", "CIDR block %s is malformed", text(x.CidrIpv6))
		}
		if refused := add(r, x.Description); refused != nil {
			return nil, refused
		}
	}
	for _, x := range p.UserIdGroupPairs {
		r := base
		var refused *apiError
		switch {
		case x.UserId != nil && *x.UserId != c.server.config.Account:
			return nil, refuse("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.")
		case x.GroupId != nil:
			r.source, refused = c.group(*x.GroupId)
		case x.GroupName != nil:
			r.source, refused = c.groupNamed(*x.GroupName, g.vpc)
		default:
			return nil, c.wrong("MissingParameter", "The request must contain the parameter groupId or groupName")
		}
		if refused != nil {
			return nil, refused
		}
		if r.source.vpc != g.vpc {
			return nil, refuse("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.")
		}
		if refused := add(r, x.Description); refused != nil {
			return nil, refused
		}
	}
	if len(rules) == 0 {
		return nil, c.wrong("MissingParameter", "The request must contain a source or destination of the permission")
	}
	return rules, nil
}

// ports checks and sets the ports of a rule as IpPermission documents them.
func (r *rule) ports(p permission) *apiError {
	from, to := -1, -1
	if p.FromPort != nil {
		from = *p.FromPort
	}
	if p.ToPort != nil {
		to = *p.ToPort
	}
	switch r.protocol {
	case "tcp", "udp":
		if p.FromPort == nil || p.ToPort == nil {
			return refuse("InvalidParameterValue", "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
		}
		if from < 0 || to > 65535 || from > to {
			return refuse("InvalidParameterValue", "Invalid value '%d-%d' for portRange.", from, to)
		}
		r.from, r.to = from, to
	case "icmp", "icmpv6":
		if p.FromPort == nil || p.ToPort == nil {
			return refuse("InvalidParameterValue", "ICMP needs a type and a code")
		}
		if from < -1 || from > 255 || to < -1 || to > 255 || from == -1 && to != -1 {
			return refuse("InvalidParameterValue", "Invalid ICMP type or code %d/%d", from, to)
		}
		r.from, r.to = from, to
	case "-1":
		// With all protocols, all ports are allowed whatever is given.
	default:
		if n, err := strconv.Atoi(r.protocol); err != nil || n < 0 || n > 255 {
			return refuse("InvalidParameterValue", "Invalid value '%s' for IP protocol. Unknown protocol.", r.protocol)
		}
	}
	return nil
}

// cidr returns a block in its canonical form; "" if it is none. Bits of the host are refused.
func cidr(p *string, six bool) string {
	if p == nil {
		return ""
	}
	prefix, err := netip.ParsePrefix(*p)
	if err != nil || prefix.Addr().Is6() != six || prefix.Masked() != prefix {
		return ""
	}
	return prefix.String()
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

type authorizeOut struct {
	Return bool      `xml:"return"`
	Rules  []xmlRule `xml:"securityGroupRuleSet>item"`
}

func authorize(egress bool) func(*call, *rulesIn) (any, *apiError) {
	return func(c *call, in *rulesIn) (any, *apiError) {
		g, refused := c.named(in.GroupId, in.GroupName)
		if refused != nil {
			return nil, refused
		}
		tags, refused := tagsFor(in.TagSpecifications, "security-group-rule")
		if refused != nil {
			return nil, refused
		}
		if len(in.IpPermissions) == 0 {
			return nil, c.wrong("MissingParameter", "The request must contain the parameter ipPermissions")
		}
		rules, refused := c.expandAll(g, egress, in.IpPermissions)
		if refused != nil {
			return nil, refused
		}
		n := 0
		for _, old := range c.server.rules {
			if old.group != g || old.egress != egress || !old.existsAt(c.now) {
				continue
			}
			n++
			for _, r := range rules {
				if r.same(old) {
					return nil, refuse("InvalidPermission.Duplicate", "the specified rule \"%s\" already exists", r)
				}
			}
		}
		if n+len(rules) > maxRulesPerGroup {
			return nil, refuse("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
		}
		out := authorizeOut{Return: true}
		for _, r := range rules {
			r.id = c.server.newID("sgr")
			r.tags = newTags(c.now, tags["security-group-rule"])
			c.server.rules = append(c.server.rules, r)
			out.Rules = append(out.Rules, c.xmlRule(r, c.now))
		}
		return out, nil
	}
}

func (c *call) expandAll(g *group, egress bool, permissions []permission) ([]*rule, *apiError) {
	var rules []*rule
	for _, p := range permissions {
		more, refused := c.expand(g, egress, p)
		if refused != nil {
			return nil, refused
		}
		for _, r := range more {
			if slices.ContainsFunc(rules, r.same) {
				return nil, refuse("InvalidParameterValue", "The same permission must not appear multiple times")
			}
			rules = append(rules, r)
		}
	}
	return rules, nil
}

func revoke(egress bool) func(*call, *rulesIn) (any, *apiError) {
	return func(c *call, in *rulesIn) (any, *apiError) {
		g, refused := c.named(in.GroupId, in.GroupName)
		if refused != nil {
			return nil, refused
		}
		if len(in.IpPermissions) > 0 == (len(in.SecurityGroupRuleIds) > 0) {
			return nil, c.wrong("InvalidParameterCombination", "Either ipPermissions or securityGroupRuleIds are needed")
		}
		var gone []*rule
		for _, id := range in.SecurityGroupRuleIds {
			r, refused := c.rule(id)
			if refused != nil {
				return nil, refused
			}
			if r.group != g || r.egress != egress {
				return nil, refuse("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", id)
			}
			gone = append(gone, r)
		}
		wanted, refused := c.expandAll(g, egress, in.IpPermissions)
		if refused != nil {
			return nil, refused
		}
		for _, r := range wanted {
			at := slices.IndexFunc(c.server.rules, func(old *rule) bool { return old.existsAt(c.now) && old.same(r) })
			if at < 0 {
				return nil, refuse("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
			}
			gone = append(gone, c.server.rules[at])
		}
		for _, r := range gone {
			r.deleted = c.now
		}
		return done{true}, nil
	}
}
