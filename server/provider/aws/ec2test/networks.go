package ec2test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// vpc is a virtual private cloud. VPCs and subnets are there from the start and for good.
type vpc struct {
	id       string
	cidr     netip.Prefix
	cidr6    netip.Prefix
	standard bool
	tags     tagLog
}

// subnet of a VPC. EC2 keeps the first four addresses and the last one of each (Amazon VPC User Guide, "Subnet CIDR blocks").
type subnet struct {
	id, zone string
	vpc      *vpc
	cidr     netip.Prefix
	cidr6    netip.Prefix
	standard bool
	public   bool
	tags     tagLog
	next     uint32
}

const reservedAddresses = 5

func (s *Server) zones() []string {
	return []string{s.config.Region + "a", s.config.Region + "b", s.config.Region + "c"}
}

// makeNetworks makes the default VPC and one named other with private subnets, the second of which has IPv6.
func (s *Server) makeNetworks() {
	s.makeVPC("", "172.31.0.0/16", []string{"172.31.0.0/20", "172.31.16.0/20", "172.31.32.0/20"})
	s.makeVPC("other", "10.50.0.0/16", []string{"10.50.0.0/24", "10.50.1.0/24", "10.50.2.0/28"})
	s.vpcs[1].cidr6 = netip.MustParsePrefix("2001:db8:50::/56")
	s.subnets[4].cidr6 = netip.MustParsePrefix("2001:db8:50:1::/64")
}

func (s *Server) makeVPC(name, cidr string, subnets []string) {
	v := &vpc{id: s.newID("vpc"), cidr: netip.MustParsePrefix(cidr), standard: name == ""}
	s.vpcs = append(s.vpcs, v)
	if name != "" {
		v.tags.set(time.Time{}, "Name", name)
	}
	for i, cidr := range subnets {
		n := &subnet{id: s.newID("subnet"), zone: s.zones()[i], vpc: v, cidr: netip.MustParsePrefix(cidr), standard: v.standard, public: v.standard}
		if name != "" {
			n.tags.set(time.Time{}, "Name", name+"-"+n.zone[len(n.zone)-1:])
		}
		s.subnets = append(s.subnets, n)
	}
	s.makeDefaultGroup(v)
}

func (s *Server) deleteDefaultVPC() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vpcs = slices.DeleteFunc(s.vpcs, func(v *vpc) bool { return v.standard })
	s.subnets = slices.DeleteFunc(s.subnets, func(n *subnet) bool { return n.vpc.standard })
	s.groups = slices.DeleteFunc(s.groups, func(g *group) bool { return g.vpc.standard })
}

func (s *Server) defaultVPC() *vpc {
	for _, v := range s.vpcs {
		if v.standard {
			return v
		}
	}
	return nil
}

func (c *call) vpc(id string) (*vpc, *apiError) {
	for _, v := range c.server.vpcs {
		if v.id == id {
			return v, nil
		}
	}
	return nil, refuse("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
}

func (c *call) subnet(id string) (*subnet, *apiError) {
	for _, n := range c.server.subnets {
		if n.id == id {
			return n, nil
		}
	}
	return nil, refuse("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
}

// free is how many addresses a subnet has left.
func (c *call) free(n *subnet) int {
	used := 0
	for _, i := range c.server.interfaces {
		if i.subnet == n && i.existsAt(c.now) {
			used++
		}
	}
	return 1<<(32-n.cidr.Bits()) - reservedAddresses - used
}

// takeAddress returns the next free address of a subnet. Addresses come in order, so that they are reused late.
func (c *call) takeAddress(n *subnet) netip.Addr {
	used := make(map[netip.Addr]bool)
	for _, i := range c.server.interfaces {
		if i.subnet == n && i.existsAt(c.now) {
			used[i.address] = true
		}
	}
	size := uint32(1) << (32 - n.cidr.Bits())
	for {
		n.next = n.next%(size-reservedAddresses) + 1
		if a := nth(n.cidr, n.next+3); !used[a] {
			return a
		}
	}
}

func nth(p netip.Prefix, n uint32) netip.Addr {
	b := p.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}

type describeVpcsIn struct {
	DryRun     bool
	Filters    []filter
	VpcIds     []string
	MaxResults *int
	NextToken  *string
}

type xmlVpc struct {
	ID        string         `xml:"vpcId"`
	Owner     string         `xml:"ownerId"`
	State     string         `xml:"state"`
	CIDR      string         `xml:"cidrBlock"`
	CIDRs     []xmlVpcCIDR   `xml:"cidrBlockAssociationSet>item"`
	CIDR6s    *[]xmlVpcCIDR6 `xml:"ipv6CidrBlockAssociationSet>item"`
	DHCP      string         `xml:"dhcpOptionsId"`
	Tenancy   string         `xml:"instanceTenancy"`
	IsDefault bool           `xml:"isDefault"`
	Tags      *xmlTags       `xml:"tagSet"`
}

type xmlVpcCIDR struct {
	ID    string `xml:"associationId"`
	CIDR  string `xml:"cidrBlock"`
	State string `xml:"cidrBlockState>state"`
}

type xmlVpcCIDR6 struct {
	ID    string `xml:"associationId"`
	CIDR  string `xml:"ipv6CidrBlock"`
	State string `xml:"ipv6CidrBlockState>state"`
}

type describeVpcsOut struct {
	Vpcs []xmlVpc `xml:"vpcSet>item"`
	Next string   `xml:"nextToken,omitempty"`
}

func (v *vpc) attr(name string) ([]string, bool) {
	switch name {
	case "cidr", "cidr-block-association.cidr-block":
		return []string{v.cidr.String()}, true
	case "is-default":
		return []string{boolText(v.standard)}, true
	case "state":
		return []string{"available"}, true
	case "vpc-id":
		return []string{v.id}, true
	}
	return nil, false
}

func describeVpcs(c *call, in *describeVpcsIn) (any, *apiError) {
	p := page{in.MaxResults, in.NextToken}
	if refused := c.exclusive(in.VpcIds, p, "vpcIds"); refused != nil {
		return nil, refused
	}
	if refused := c.checkFilters(in.Filters, new(vpc).attr); refused != nil {
		return nil, refused
	}
	found := c.server.vpcs
	if len(in.VpcIds) > 0 {
		found = nil
		for _, id := range in.VpcIds {
			v, refused := c.vpc(id)
			if refused != nil {
				return nil, refused
			}
			found = append(found, v)
		}
	}
	found = slices.DeleteFunc(slices.Clone(found), func(v *vpc) bool { return !c.match(in.Filters, v.tags.at(c.seen), v.attr) })
	found, next, refused := cutPage(c, p, [2]int{5, 1000}, found, func(v *vpc) string { return v.id })
	if refused != nil {
		return nil, refused
	}
	out := describeVpcsOut{Next: next}
	for _, v := range found {
		x := xmlVpc{
			ID: v.id, Owner: c.server.config.Account, State: "available", CIDR: v.cidr.String(), DHCP: "dopt-0123456789abcdef0",
			Tenancy: "default", IsDefault: v.standard, Tags: tagSet(v.tags.at(c.seen)),
			CIDRs: []xmlVpcCIDR{{"vpc-cidr-assoc-" + v.id[4:], v.cidr.String(), "associated"}},
		}
		if v.cidr6.IsValid() {
			x.CIDR6s = &[]xmlVpcCIDR6{{"vpc-cidr-assoc-6" + v.id[5:], v.cidr6.String(), "associated"}}
		}
		out.Vpcs = append(out.Vpcs, x)
	}
	return out, nil
}

type describeSubnetsIn struct {
	DryRun     bool
	Filters    []filter
	SubnetIds  []string
	MaxResults *int
	NextToken  *string
}

type xmlSubnet struct {
	ID      string         `xml:"subnetId"`
	ARN     string         `xml:"subnetArn"`
	State   string         `xml:"state"`
	Owner   string         `xml:"ownerId"`
	VPC     string         `xml:"vpcId"`
	CIDR    string         `xml:"cidrBlock"`
	CIDR6s  *[]xmlVpcCIDR6 `xml:"ipv6CidrBlockAssociationSet>item"`
	Free    int            `xml:"availableIpAddressCount"`
	Zone    string         `xml:"availabilityZone"`
	ZoneID  string         `xml:"availabilityZoneId"`
	Default bool           `xml:"defaultForAz"`
	Public  bool           `xml:"mapPublicIpOnLaunch"`
	Assign6 bool           `xml:"assignIpv6AddressOnCreation"`
	Native6 bool           `xml:"ipv6Native"`
	Tags    *xmlTags       `xml:"tagSet"`
}

type describeSubnetsOut struct {
	Subnets []xmlSubnet `xml:"subnetSet>item"`
	Next    string      `xml:"nextToken,omitempty"`
}

func (n *subnet) attr(name string) ([]string, bool) {
	switch name {
	case "availability-zone", "availabilityZone":
		return []string{n.zone}, true
	case "availability-zone-id", "availabilityZoneId":
		return []string{zoneID(n.zone)}, true
	case "cidr-block", "cidr", "cidrBlock":
		return []string{n.cidr.String()}, true
	case "default-for-az", "defaultForAz":
		return []string{boolText(n.standard)}, true
	case "map-public-ip-on-launch":
		return []string{boolText(n.public)}, true
	case "state":
		return []string{"available"}, true
	case "subnet-id":
		return []string{n.id}, true
	case "vpc-id":
		return []string{n.vpc.id}, true
	}
	return nil, false
}

func describeSubnets(c *call, in *describeSubnetsIn) (any, *apiError) {
	p := page{in.MaxResults, in.NextToken}
	if refused := c.exclusive(in.SubnetIds, p, "subnetIds"); refused != nil {
		return nil, refused
	}
	if refused := c.checkFilters(in.Filters, (&subnet{vpc: new(vpc)}).attr); refused != nil {
		return nil, refused
	}
	found := c.server.subnets
	if len(in.SubnetIds) > 0 {
		found = nil
		for _, id := range in.SubnetIds {
			n, refused := c.subnet(id)
			if refused != nil {
				return nil, refused
			}
			found = append(found, n)
		}
	}
	found = slices.DeleteFunc(slices.Clone(found), func(n *subnet) bool { return !c.match(in.Filters, n.tags.at(c.seen), n.attr) })
	found, next, refused := cutPage(c, p, [2]int{5, 1000}, found, func(n *subnet) string { return n.id })
	if refused != nil {
		return nil, refused
	}
	out := describeSubnetsOut{Next: next}
	for _, n := range found {
		x := xmlSubnet{
			ID: n.id, ARN: "arn:aws:ec2:" + c.server.config.Region + ":" + c.server.config.Account + ":subnet/" + n.id,
			State: "available", Owner: c.server.config.Account, VPC: n.vpc.id, CIDR: n.cidr.String(), Free: c.free(n),
			Zone: n.zone, ZoneID: zoneID(n.zone), Default: n.standard, Public: n.public, Tags: tagSet(n.tags.at(c.seen)),
		}
		if n.cidr6.IsValid() {
			x.CIDR6s = &[]xmlVpcCIDR6{{"subnet-cidr-assoc-" + n.id[7:], n.cidr6.String(), "associated"}}
		}
		out.Subnets = append(out.Subnets, x)
	}
	return out, nil
}

// zoneID is the id of a zone, which is the same for all accounts, as euc1-az1.
func zoneID(zone string) string {
	if zone == "" {
		return ""
	}
	parts := strings.Split(zone[:len(zone)-1], "-")
	id := parts[0]
	for _, p := range parts[1:] {
		id += p[:1]
	}
	return id + "-az" + itoa(int(zone[len(zone)-1]-'a')+1)
}
