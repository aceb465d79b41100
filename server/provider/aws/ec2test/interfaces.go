package ec2test

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// networkInterface is made with an instance. One that is not deleted with it stays, detached.
type networkInterface struct {
	id, attachment, mac        string
	description                string
	subnet                     *subnet
	instance                   *instance
	groups                     []*group
	address, public, address6  netip.Addr
	deleteWith                 bool
	created, detached, deleted time.Time
	tags                       tagLog
}

func (n *networkInterface) existsAt(t time.Time) bool {
	return !t.Before(n.created) && (n.deleted.IsZero() || t.Before(n.deleted))
}

func (n *networkInterface) attachedAt(t time.Time) bool {
	return n.detached.IsZero() || t.Before(n.detached)
}

func (n *networkInterface) status(t time.Time) string {
	if n.attachedAt(t) {
		return "in-use"
	}
	return "available"
}

// nicIn is an InstanceNetworkInterfaceSpecification.
type nicIn struct {
	AssociatePublicIpAddress *bool
	DeleteOnTermination      *bool
	Description              string
	DeviceIndex              *int
	Groups                   []string
	Ipv6AddressCount         int
	Ipv6Addresses            []struct{ Ipv6Address string }
	NetworkInterfaceId       string
	PrivateIpAddress         string
	SubnetId                 string
}

// nicPlan is how the instance's interface shall be.
type nicPlan struct {
	address     netip.Addr
	public      *bool
	ipv6        int
	deleteWith  bool
	description string
}

// checkNetwork finds subnet and groups. What goes into an interface's specification must not stand beside it
// (RunInstances: NetworkInterfaces, SecurityGroupIds, SubnetId).
func (p *plan) checkNetwork(c *call) *apiError {
	in := p.in
	p.nic = nicPlan{deleteWith: true, ipv6: in.Ipv6AddressCount}
	subnetID, groupIDs, address := in.SubnetId, in.SecurityGroupIds, in.PrivateIpAddress
	if len(in.NetworkInterfaces) > 0 {
		for _, x := range [...]struct {
			there bool
			what  string
		}{
			{len(in.SecurityGroupIds)+len(in.SecurityGroups) > 0, "instance-level security groups"},
			{in.SubnetId != "", "an instance-level subnet ID"},
			{in.PrivateIpAddress != "", "an instance-level private address"},
			{in.Ipv6AddressCount > 0, "an instance-level IPv6 address count"},
		} {
			if x.there {
				return refuse("InvalidParameterCombination", "Network interfaces and %s may not be specified on the same request", x.what)
			}
		}
		if len(in.NetworkInterfaces) > 1 || in.NetworkInterfaces[0].NetworkInterfaceId != "" || len(in.NetworkInterfaces[0].Ipv6Addresses) > 0 {
			return c.wrong("UnsupportedOperation", "not implemented here: several or existing network interfaces, chosen IPv6 addresses")
		}
		n := in.NetworkInterfaces[0]
		if n.DeviceIndex == nil {
			return refuse("MissingParameter", "Each network interface requires a device index.")
		}
		if *n.DeviceIndex != 0 {
			return refuse("InvalidParameterValue", "A primary network interface has a device index of 0")
		}
		subnetID, groupIDs, address = n.SubnetId, n.Groups, n.PrivateIpAddress
		p.nic = nicPlan{public: n.AssociatePublicIpAddress, ipv6: n.Ipv6AddressCount, deleteWith: true, description: n.Description}
		if n.DeleteOnTermination != nil {
			p.nic.deleteWith = *n.DeleteOnTermination
		}
	}
	if refused := p.findSubnet(c, subnetID); refused != nil {
		return refused
	}
	v := c.server.defaultVPC()
	if p.subnet != nil {
		v = p.subnet.vpc
	}
	if refused := p.findGroups(c, v, groupIDs); refused != nil {
		return refused
	}
	return p.checkAddress(c, address)
}

func (p *plan) findSubnet(c *call, id string) *apiError {
	zone := p.in.Placement.AvailabilityZone
	if zone != "" && !slices.Contains(c.server.zones(), zone) {
		return refuse("InvalidParameterValue", "Invalid availability zone: [%s]", zone)
	}
	if id == "" {
		if c.server.defaultVPC() == nil {
			return refuse("VPCIdNotSpecified", "No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.")
		}
		return nil
	}
	var refused *apiError
	if p.subnet, refused = c.subnet(id); refused != nil {
		return refused
	}
	if zone != "" && zone != p.subnet.zone {
		return refuse("InvalidParameterCombination", "The subnet '%s' is not in the Availability Zone '%s'", id, zone)
	}
	return nil
}

func (p *plan) findGroups(c *call, v *vpc, ids []string) *apiError {
	for _, id := range ids {
		g, refused := c.group(id)
		if refused != nil {
			return refused
		}
		if g.vpc != v {
			return refuse("InvalidParameter", "Security group %s and subnet %s belong to different networks.", g.id, p.subnetID())
		}
		p.groups = append(p.groups, g)
	}
	for _, name := range p.in.SecurityGroups {
		if v == nil || !v.standard {
			return refuse("InvalidParameterCombination", "The parameter groupName cannot be used with the parameter subnet")
		}
		g, refused := c.groupNamed(name, v)
		if refused != nil {
			return refused
		}
		p.groups = append(p.groups, g)
	}
	if len(p.groups) == 0 {
		g, refused := c.groupNamed("default", v)
		if refused != nil {
			return refused
		}
		p.groups = []*group{g}
	}
	if len(p.groups) > maxGroupsPerInterface {
		return refuse("SecurityGroupsPerInterfaceLimitExceeded", "The maximum number of security groups per interface has been reached.")
	}
	return nil
}

func (p *plan) subnetID() string {
	if p.subnet == nil {
		return ""
	}
	return p.subnet.id
}

func (p *plan) checkAddress(c *call, address string) *apiError {
	if p.nic.ipv6 > 0 && (p.subnet == nil || !p.subnet.cidr6.IsValid()) {
		return refuse("InvalidParameterValue", "The subnet '%s' has no IPv6 CIDR block", p.subnetID())
	}
	if p.nic.ipv6 > 1 {
		return c.wrong("UnsupportedOperation", "not implemented here: more than one IPv6 address")
	}
	if address == "" {
		return nil
	}
	if p.in.MaxCount > 1 {
		return refuse("InvalidParameterCombination", "A private IP address cannot be specified when launching more than one instance")
	}
	if p.subnet == nil {
		return refuse("InvalidParameterCombination", "Specifying an IP address is only valid for VPC instances and thus requires a subnet in which to launch")
	}
	a, ok := parseAddr(address, p.subnet.cidr)
	if !ok {
		return refuse("InvalidParameterValue", "Address %s does not fall within the subnet's address range", address)
	}
	for _, n := range c.server.interfaces {
		if n.subnet == p.subnet && n.address == a && n.existsAt(c.now) {
			return refuse("InvalidIPAddress.InUse", "Address %s is in use.", a)
		}
	}
	p.nic.address = a
	return nil
}

func (c *call) makeInterface(i *instance, p *plan) {
	s := c.server
	n := &networkInterface{
		id: s.newID("eni"), attachment: s.newID("eni-attach"), subnet: p.subnet, instance: i, groups: p.groups, address: p.nic.address,
		description: p.nic.description, deleteWith: p.nic.deleteWith, created: c.now, tags: newTags(c.now, p.tags["network-interface"]),
	}
	x := s.hex(8)
	n.mac = "02:0a:" + x[0:2] + ":" + x[2:4] + ":" + x[4:6] + ":" + x[6:8]
	if !n.address.IsValid() {
		n.address = c.takeAddress(p.subnet)
	}
	public := p.subnet.public
	if p.nic.public != nil {
		public = *p.nic.public
	}
	s.ids++
	if public {
		n.public = nth(netip.MustParsePrefix("198.18.0.0/15"), uint32(s.ids))
	}
	if p.nic.ipv6 > 0 {
		b := p.subnet.cidr6.Addr().As16()
		b[13], b[14], b[15] = byte(s.ids>>16), byte(s.ids>>8), byte(s.ids)
		n.address6 = netip.AddrFrom16(b)
	}
	i.nic = n
	s.interfaces = append(s.interfaces, n)
}

func (c *call) networkInterface(id string) (*networkInterface, *apiError) {
	if !wellFormed(id, "eni-") {
		return nil, refuse("InvalidNetworkInterfaceId.Malformed", "Invalid id: \"%s\"", id)
	}
	for _, n := range c.server.interfaces {
		if n.id == id && n.existsAt(c.seen) && n.existsAt(c.now) {
			return n, nil
		}
	}
	return nil, refuse("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id)
}

type deleteInterfaceIn struct {
	DryRun             bool
	NetworkInterfaceId string
}

func deleteInterface(c *call, in *deleteInterfaceIn) (any, *apiError) {
	n, refused := c.networkInterface(in.NetworkInterfaceId)
	if refused != nil {
		return nil, refused
	}
	if n.attachedAt(c.now) {
		return nil, refuse("InvalidNetworkInterface.InUse", "Network interface '%s' is currently in use.", n.id)
	}
	n.deleted = c.now
	return done{true}, nil
}

func (s *Server) truthInterfaces() []Interface {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var out []Interface
	for _, n := range s.interfaces {
		if !n.existsAt(now) {
			continue
		}
		x := Interface{ID: n.id, State: n.status(now), Subnet: n.subnet.id, Address: n.address, DeleteOnTermination: n.deleteWith, Tags: n.tags.at(now)}
		if n.attachedAt(now) {
			x.Instance = n.instance.id
		}
		for _, g := range n.groups {
			x.Groups = append(x.Groups, g.id)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Interface) int { return strings.Compare(a.ID, b.ID) })
	return out
}
