package ec2test

import (
	"net/netip"
	"slices"
	"strings"
)

type describeInterfacesIn struct {
	DryRun              bool
	Filters             []filter
	NetworkInterfaceIds []string
	MaxResults          *int
	NextToken           *string
}

type xmlInterface struct {
	ID          string          `xml:"networkInterfaceId"`
	Subnet      string          `xml:"subnetId"`
	VPC         string          `xml:"vpcId"`
	Zone        string          `xml:"availabilityZone"`
	Description string          `xml:"description"`
	Owner       string          `xml:"ownerId"`
	Managed     bool            `xml:"requesterManaged"`
	Status      string          `xml:"status"`
	MAC         string          `xml:"macAddress"`
	Address     string          `xml:"privateIpAddress"`
	DNS         string          `xml:"privateDnsName"`
	Check       bool            `xml:"sourceDestCheck"`
	Groups      []groupRef      `xml:"groupSet>item"`
	Attachment  *xmlAttachment  `xml:"attachment"`
	Association *xmlAssociation `xml:"association"`
	Tags        *xmlTags        `xml:"tagSet"`
	Addresses   []xmlAddress    `xml:"privateIpAddressesSet>item"`
	Addresses6  []xmlAddress6   `xml:"ipv6AddressesSet>item"`
	Type        string          `xml:"interfaceType"`
}

type xmlAttachment struct {
	ID       string `xml:"attachmentId"`
	Instance string `xml:"instanceId,omitempty"`
	Owner    string `xml:"instanceOwnerId,omitempty"`
	Index    int    `xml:"deviceIndex"`
	Status   string `xml:"status"`
	Time     string `xml:"attachTime"`
	Delete   bool   `xml:"deleteOnTermination"`
	Card     int    `xml:"networkCardIndex"`
}

type xmlAssociation struct {
	Public string `xml:"publicIp"`
	DNS    string `xml:"publicDnsName"`
	Owner  string `xml:"ipOwnerId"`
}

type xmlAddress struct {
	Address     string          `xml:"privateIpAddress"`
	DNS         string          `xml:"privateDnsName"`
	Primary     bool            `xml:"primary"`
	Association *xmlAssociation `xml:"association"`
}

type xmlAddress6 struct {
	Address string `xml:"ipv6Address"`
	Primary bool   `xml:"isPrimaryIpv6"`
}

type describeInterfacesOut struct {
	Interfaces []xmlInterface `xml:"networkInterfaceSet>item"`
	Next       string         `xml:"nextToken,omitempty"`
}

func (c *call) interfaceAttr(n *networkInterface) attribute {
	return func(name string) ([]string, bool) {
		attached := n.instance != nil && n.attachedAt(c.seen)
		switch name {
		case "addresses.private-ip-address", "private-ip-address":
			return []string{n.address.String()}, true
		case "attachment.attachment-id":
			if attached {
				return []string{n.attachment}, true
			}
			return nil, true
		case "attachment.instance-id":
			if attached {
				return []string{n.instance.id}, true
			}
			return nil, true
		case "attachment.delete-on-termination":
			return []string{boolText(n.deleteWith)}, true
		case "availability-zone":
			return []string{n.subnet.zone}, true
		case "description":
			return []string{n.description}, true
		case "group-id":
			var ids []string
			for _, g := range n.groups {
				ids = append(ids, g.id)
			}
			return ids, true
		case "group-name":
			var names []string
			for _, g := range n.groups {
				names = append(names, g.name)
			}
			return names, true
		case "mac-address":
			return []string{n.mac}, true
		case "network-interface-id":
			return []string{n.id}, true
		case "owner-id":
			return []string{c.server.config.Account}, true
		case "status":
			return []string{n.status(c.seen)}, true
		case "subnet-id":
			return []string{n.subnet.id}, true
		case "vpc-id":
			return []string{n.subnet.vpc.id}, true
		}
		return nil, false
	}
}

func describeInterfaces(c *call, in *describeInterfacesIn) (any, *apiError) {
	p := page{in.MaxResults, in.NextToken}
	if refused := c.exclusive(in.NetworkInterfaceIds, p, "networkInterfaceIds"); refused != nil {
		return nil, refused
	}
	if refused := c.checkFilters(in.Filters, c.interfaceAttr(&networkInterface{subnet: &subnet{vpc: new(vpc)}})); refused != nil {
		return nil, refused
	}
	var found []*networkInterface
	for _, id := range in.NetworkInterfaceIds {
		n, refused := c.networkInterface(id)
		if refused != nil {
			return nil, refused
		}
		found = append(found, n)
	}
	if len(in.NetworkInterfaceIds) == 0 {
		for _, n := range c.server.interfaces {
			if n.existsAt(c.seen) {
				found = append(found, n)
			}
		}
	}
	found = slices.DeleteFunc(found, func(n *networkInterface) bool { return !c.match(in.Filters, n.tags.at(c.seen), c.interfaceAttr(n)) })
	found, next, refused := cutPage(c, p, [2]int{5, 1000}, found, func(n *networkInterface) string { return n.id })
	if refused != nil {
		return nil, refused
	}
	out := describeInterfacesOut{Next: next}
	for _, n := range found {
		x := xmlInterface{
			ID: n.id, Subnet: n.subnet.id, VPC: n.subnet.vpc.id, Zone: n.subnet.zone, Description: n.description,
			Owner: c.server.config.Account, Status: n.status(c.seen), MAC: n.mac, Address: n.address.String(), DNS: c.dnsName(n.address),
			Check: true, Groups: groupRefs(n.groups), Tags: tagSet(n.tags.at(c.seen)), Addresses: c.addresses(n), Addresses6: addresses6(n), Type: "interface",
		}
		if n.attachedAt(c.seen) {
			x.Attachment = c.attachment(n)
			x.Attachment.Instance, x.Attachment.Owner = n.instance.id, c.server.config.Account
			x.Association = c.association(n)
		}
		out.Interfaces = append(out.Interfaces, x)
	}
	return out, nil
}

// dnsName is the private name of an address (Amazon VPC User Guide, "DNS attributes for your VPC").
func (c *call) dnsName(a netip.Addr) string {
	region := c.server.config.Region + ".compute.internal"
	if c.server.config.Region == "us-east-1" {
		region = "ec2.internal"
	}
	return "ip-" + strings.ReplaceAll(a.String(), ".", "-") + "." + region
}

func (c *call) publicName(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return "ec2-" + strings.ReplaceAll(a.String(), ".", "-") + "." + c.server.config.Region + ".compute.amazonaws.com"
}

func (c *call) attachment(n *networkInterface) *xmlAttachment {
	return &xmlAttachment{ID: n.attachment, Status: "attached", Time: stamp(n.created), Delete: n.deleteWith}
}

func (c *call) association(n *networkInterface) *xmlAssociation {
	if !n.public.IsValid() {
		return nil
	}
	return &xmlAssociation{n.public.String(), c.publicName(n.public), "amazon"}
}

func (c *call) addresses(n *networkInterface) []xmlAddress {
	return []xmlAddress{{n.address.String(), c.dnsName(n.address), true, c.association(n)}}
}

func addresses6(n *networkInterface) []xmlAddress6 {
	if !n.address6.IsValid() {
		return nil
	}
	return []xmlAddress6{{n.address6.String(), false}}
}
