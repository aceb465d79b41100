package ec2test

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// Quotas of "Amazon VPC quotas", security groups.
const (
	maxGroupsPerVPC       = 2500
	maxRulesPerGroup      = 60
	maxGroupsPerInterface = 5
)

// group is a security group.
type group struct {
	id, name, description string
	vpc                   *vpc
	created, deleted      time.Time
	tags                  tagLog
}

func (g *group) existsAt(t time.Time) bool {
	return !t.Before(g.created) && (g.deleted.IsZero() || t.Before(g.deleted))
}

func (s *Server) makeDefaultGroup(v *vpc) {
	g := &group{id: s.newID("sg"), name: "default", description: "default VPC security group", vpc: v}
	s.groups = append(s.groups, g)
	s.rules = append(s.rules,
		&rule{id: s.newID("sgr"), group: g, protocol: "-1", from: -1, to: -1, source: g},
		&rule{id: s.newID("sgr"), group: g, egress: true, protocol: "-1", from: -1, to: -1, cidr: "0.0.0.0/0"})
}

// group finds a security group as the call sees it: one that was just made may not be there yet.
func (c *call) group(id string) (*group, *apiError) {
	if !strings.HasPrefix(id, "sg-") {
		return nil, refuse("InvalidGroupId.Malformed", "Invalid id: \"%s\" (expecting \"sg-...\")", id)
	}
	for _, g := range c.server.groups {
		if g.id == id && g.existsAt(c.seen) && g.existsAt(c.now) {
			return g, nil
		}
	}
	return nil, refuse("InvalidGroup.NotFound", "The security group '%s' does not exist", id)
}

func (c *call) groupNamed(name string, v *vpc) (*group, *apiError) {
	for _, g := range c.server.groups {
		if g.name == name && g.vpc == v && g.existsAt(c.seen) && g.existsAt(c.now) {
			return g, nil
		}
	}
	return nil, refuse("InvalidGroup.NotFound", "The security group '%s' does not exist", name)
}

// The characters that the references of CreateSecurityGroup and IpRange allow in names and descriptions.
var (
	groupText = regexp.MustCompile(`^[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}$`)
	ruleText  = regexp.MustCompile(`^[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{0,255}$`)
)

type createGroupIn struct {
	DryRun            bool
	Description       string
	GroupName         string
	VpcId             *string
	TagSpecifications []tagSpec
}

type createGroupOut struct {
	ID   string   `xml:"groupId"`
	Tags *xmlTags `xml:"tagSet"`
}

func createGroup(c *call, in *createGroupIn) (any, *apiError) {
	s := c.server
	v := s.defaultVPC()
	if in.VpcId != nil {
		var refused *apiError
		if v, refused = c.vpc(*in.VpcId); refused != nil {
			return nil, refused
		}
	} else if v == nil {
		return nil, refuse("VPCIdNotSpecified", "No default VPC for this user")
	}
	switch {
	case strings.HasPrefix(in.GroupName, "sg-"):
		return nil, refuse("InvalidParameterValue", "Value (%s) for parameter GroupName is invalid. Group names may not be in the format sg-*.", in.GroupName)
	case !groupText.MatchString(in.GroupName):
		return nil, refuse("InvalidParameterValue", "Value (%s) for parameter GroupName is invalid. Character sets beyond ASCII are not supported.", in.GroupName)
	case !groupText.MatchString(in.Description):
		return nil, refuse("InvalidParameterValue", "Value (%s) for parameter GroupDescription is invalid. Character sets beyond ASCII are not supported.", in.Description)
	case strings.EqualFold(in.GroupName, "default"):
		return nil, refuse("InvalidGroup.Reserved", "Cannot use reserved security group name: %s", in.GroupName)
	}
	tags, refused := tagsFor(in.TagSpecifications, "security-group")
	if refused != nil {
		return nil, refused
	}
	n := 0
	for _, g := range s.groups {
		if g.vpc != v || !g.existsAt(c.now) {
			continue
		}
		// Names are unique in a VPC whatever their case.
		if strings.EqualFold(g.name, in.GroupName) {
			return nil, refuse("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", in.GroupName, v.id)
		}
		n++
	}
	if n >= maxGroupsPerVPC {
		return nil, refuse("SecurityGroupLimitExceeded", "The maximum number of security groups has been reached.")
	}
	g := &group{
		id: s.newID("sg"), name: in.GroupName, description: in.Description, vpc: v, created: c.now,
		tags: newTags(c.now, tags["security-group"]),
	}
	s.groups = append(s.groups, g)
	s.rules = append(s.rules, &rule{
		id: s.newID("sgr"), group: g, egress: true, protocol: "-1", from: -1, to: -1, cidr: "0.0.0.0/0", created: c.now,
	})
	return createGroupOut{g.id, tagSet(tags["security-group"])}, nil
}

type deleteGroupIn struct {
	DryRun    bool
	GroupId   *string
	GroupName *string
}

// named finds the group that a request gives by id or, in the default VPC, by name.
func (c *call) named(id, name *string) (*group, *apiError) {
	switch {
	case id != nil && name != nil:
		return nil, refuse("InvalidParameterCombination", "The parameter groupName cannot be used with the parameter groupId")
	case id != nil:
		return c.group(*id)
	case name != nil && c.server.defaultVPC() == nil:
		return nil, refuse("DefaultVpcDoesNotExist", "No default VPC for this user")
	case name != nil:
		return c.groupNamed(*name, c.server.defaultVPC())
	}
	return nil, c.wrong("MissingParameter", "The request must contain the parameter groupName or groupId")
}

func deleteGroup(c *call, in *deleteGroupIn) (any, *apiError) {
	g, refused := c.named(in.GroupId, in.GroupName)
	if refused != nil {
		return nil, refused
	}
	if g.name == "default" {
		return nil, refuse("CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", g.id)
	}
	for _, r := range c.server.rules {
		if r.source == g && r.group != g && r.existsAt(c.now) && r.group.existsAt(c.now) {
			return nil, refuse("DependencyViolation", "resource %s has a dependent object", g.id)
		}
	}
	for _, n := range c.server.interfaces {
		if n.existsAt(c.now) && slices.Contains(n.groups, g) {
			return nil, refuse("DependencyViolation", "resource %s has a dependent object", g.id)
		}
	}
	g.deleted = c.now
	for _, r := range c.server.rules {
		if r.group == g && r.existsAt(c.now) {
			r.deleted = c.now
		}
	}
	return done{true}, nil
}

type describeGroupsIn struct {
	DryRun     bool
	Filters    []filter
	GroupIds   []string
	GroupNames []string
	MaxResults *int
	NextToken  *string
}

type xmlGroup struct {
	Owner       string          `xml:"ownerId"`
	ID          string          `xml:"groupId"`
	Name        string          `xml:"groupName"`
	Description string          `xml:"groupDescription"`
	VPC         string          `xml:"vpcId"`
	Ingress     []xmlPermission `xml:"ipPermissions>item"`
	Egress      []xmlPermission `xml:"ipPermissionsEgress>item"`
	Tags        *xmlTags        `xml:"tagSet"`
}

type describeGroupsOut struct {
	Groups []xmlGroup `xml:"securityGroupInfo>item"`
	Next   string     `xml:"nextToken,omitempty"`
}

func (c *call) groupAttr(g *group) attribute {
	return func(name string) ([]string, bool) {
		egress, ok := false, false
		rest := name
		if rest, ok = strings.CutPrefix(name, "egress.ip-permission."); ok {
			egress = true
		} else if rest, ok = strings.CutPrefix(name, "ip-permission."); !ok {
			switch name {
			case "description":
				return []string{g.description}, true
			case "group-id":
				return []string{g.id}, true
			case "group-name":
				return []string{g.name}, true
			case "owner-id":
				return []string{c.server.config.Account}, true
			case "vpc-id":
				return []string{g.vpc.id}, true
			}
			return nil, false
		}
		var values []string
		for _, r := range c.rulesOf(g) {
			if r.egress != egress {
				continue
			}
			switch rest {
			case "cidr":
				if !strings.Contains(r.cidr, ":") {
					values = append(values, r.cidr)
				}
			case "ipv6-cidr":
				if strings.Contains(r.cidr, ":") {
					values = append(values, r.cidr)
				}
			case "from-port":
				values = append(values, itoa(r.from))
			case "to-port":
				values = append(values, itoa(r.to))
			case "protocol":
				values = append(values, r.protocol)
			case "group-id":
				if r.source != nil {
					values = append(values, r.source.id)
				}
			case "group-name":
				if r.source != nil {
					values = append(values, r.source.name)
				}
			}
		}
		return values, slices.Contains([]string{"cidr", "ipv6-cidr", "from-port", "to-port", "protocol", "group-id", "group-name"}, rest)
	}
}

func describeGroups(c *call, in *describeGroupsIn) (any, *apiError) {
	p := page{in.MaxResults, in.NextToken}
	if refused := c.checkFilters(in.Filters, c.groupAttr(&group{vpc: new(vpc)})); refused != nil {
		return nil, refused
	}
	var found []*group
	for _, id := range in.GroupIds {
		g, refused := c.group(id)
		if refused != nil {
			return nil, refused
		}
		found = append(found, g)
	}
	for _, name := range in.GroupNames {
		g, refused := c.named(nil, &name)
		if refused != nil {
			return nil, refused
		}
		found = append(found, g)
	}
	if len(in.GroupIds)+len(in.GroupNames) == 0 {
		for _, g := range c.server.groups {
			if g.existsAt(c.seen) {
				found = append(found, g)
			}
		}
	}
	found = slices.DeleteFunc(found, func(g *group) bool { return !c.match(in.Filters, g.tags.at(c.seen), c.groupAttr(g)) })
	found, next, refused := cutPage(c, p, [2]int{5, 1000}, found, func(g *group) string { return g.id })
	if refused != nil {
		return nil, refused
	}
	out := describeGroupsOut{Next: next}
	for _, g := range found {
		rules := c.rulesOf(g)
		out.Groups = append(out.Groups, xmlGroup{
			Owner: c.server.config.Account, ID: g.id, Name: g.name, Description: g.description, VPC: g.vpc.id,
			Ingress: c.permissions(rules, false), Egress: c.permissions(rules, true), Tags: tagSet(g.tags.at(c.seen)),
		})
	}
	return out, nil
}

type groupRef struct {
	ID   string `xml:"groupId"`
	Name string `xml:"groupName"`
}

func groupRefs(groups []*group) []groupRef {
	var refs []groupRef
	for _, g := range groups {
		refs = append(refs, groupRef{g.id, g.name})
	}
	return refs
}
