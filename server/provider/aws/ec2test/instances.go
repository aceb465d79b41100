package ec2test

import (
	"slices"
	"strings"
)

type xmlInstance struct {
	ID             string             `xml:"instanceId"`
	Image          string             `xml:"imageId"`
	State          xmlState           `xml:"instanceState"`
	PrivateDNS     string             `xml:"privateDnsName"`
	PublicDNS      string             `xml:"dnsName"`
	Reason         string             `xml:"reason"`
	Key            string             `xml:"keyName,omitempty"`
	Index          int                `xml:"amiLaunchIndex"`
	Codes          string             `xml:"productCodes"`
	Type           string             `xml:"instanceType"`
	Launched       string             `xml:"launchTime"`
	Placement      xmlPlacement       `xml:"placement"`
	Monitoring     string             `xml:"monitoring>state"`
	Subnet         string             `xml:"subnetId,omitempty"`
	VPC            string             `xml:"vpcId,omitempty"`
	Address        string             `xml:"privateIpAddress,omitempty"`
	Public         string             `xml:"ipAddress,omitempty"`
	Address6       string             `xml:"ipv6Address,omitempty"`
	Check          bool               `xml:"sourceDestCheck"`
	Groups         []groupRef         `xml:"groupSet>item"`
	StateReason    *xmlReason         `xml:"stateReason"`
	Architecture   string             `xml:"architecture"`
	RootType       string             `xml:"rootDeviceType"`
	Root           string             `xml:"rootDeviceName"`
	Devices        []xmlDevice        `xml:"blockDeviceMapping>item"`
	Virtualization string             `xml:"virtualizationType"`
	Lifecycle      string             `xml:"instanceLifecycle,omitempty"`
	SpotRequest    string             `xml:"spotInstanceRequestId,omitempty"`
	Token          string             `xml:"clientToken"`
	Tags           *xmlTags           `xml:"tagSet"`
	Hypervisor     string             `xml:"hypervisor"`
	Interfaces     []xmlInstanceNIC   `xml:"networkInterfaceSet>item"`
	Profile        *xmlProfile        `xml:"iamInstanceProfile"`
	EBSOptimized   bool               `xml:"ebsOptimized"`
	ENA            bool               `xml:"enaSupport"`
	Cores          int                `xml:"cpuOptions>coreCount"`
	Threads        int                `xml:"cpuOptions>threadsPerCore"`
	Capacity       string             `xml:"capacityReservationSpecification>capacityReservationPreference"`
	Hibernation    bool               `xml:"hibernationOptions>configured"`
	Metadata       xmlMetadataOptions `xml:"metadataOptions"`
	Enclave        bool               `xml:"enclaveOptions>enabled"`
	Platform       string             `xml:"platformDetails"`
	Usage          string             `xml:"usageOperation"`
	Recovery       string             `xml:"maintenanceOptions>autoRecovery"`
}

type xmlState struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

type xmlReason struct {
	Code    string `xml:"code"`
	Message string `xml:"message"`
}

type xmlPlacement struct {
	Zone    string `xml:"availabilityZone"`
	Group   string `xml:"groupName"`
	Tenancy string `xml:"tenancy"`
}

type xmlProfile struct {
	ARN string `xml:"arn"`
	ID  string `xml:"id"`
}

type xmlDevice struct {
	Device string `xml:"deviceName"`
	Volume string `xml:"ebs>volumeId"`
	Status string `xml:"ebs>status"`
	Time   string `xml:"ebs>attachTime"`
	Delete bool   `xml:"ebs>deleteOnTermination"`
}

type xmlMetadataOptions struct {
	State    string `xml:"state"`
	Tokens   string `xml:"httpTokens"`
	Hops     int    `xml:"httpPutResponseHopLimit"`
	Endpoint string `xml:"httpEndpoint"`
	IPv6     string `xml:"httpProtocolIpv6"`
	Tags     string `xml:"instanceMetadataTags"`
}

type xmlInstanceNIC struct {
	ID          string          `xml:"networkInterfaceId"`
	Subnet      string          `xml:"subnetId"`
	VPC         string          `xml:"vpcId"`
	Description string          `xml:"description"`
	Owner       string          `xml:"ownerId"`
	Status      string          `xml:"status"`
	MAC         string          `xml:"macAddress"`
	Address     string          `xml:"privateIpAddress"`
	DNS         string          `xml:"privateDnsName"`
	Check       bool            `xml:"sourceDestCheck"`
	Groups      []groupRef      `xml:"groupSet>item"`
	Attachment  *xmlAttachment  `xml:"attachment"`
	Association *xmlAssociation `xml:"association"`
	Addresses   []xmlAddress    `xml:"privateIpAddressesSet>item"`
	Addresses6  []xmlAddress6   `xml:"ipv6AddressesSet>item"`
	Type        string          `xml:"interfaceType"`
}

type xmlReservation struct {
	ID        string        `xml:"reservationId"`
	Owner     string        `xml:"ownerId"`
	Groups    string        `xml:"groupSet"`
	Instances []xmlInstance `xml:"instancesSet>item"`
}

func (c *call) reservation(id string, instances []*instance) xmlReservation {
	r := xmlReservation{ID: id, Owner: c.server.config.Account}
	// What RunInstances answers is as of now: an instance is in its answer before any list has it.
	at := *c
	at.seen = c.now
	for _, i := range instances {
		r.Instances = append(r.Instances, at.xmlInstance(i))
	}
	return r
}

// xmlInstance describes an instance as seen. Pending ones have no public address yet; terminated ones have no network and
// no volumes any more.
func (c *call) xmlInstance(i *instance) xmlInstance {
	state := c.server.state(i, c.seen)
	if state == "" {
		state = "terminated"
	}
	if c.action == "RunInstances" && state == "running" && i.launched.Equal(c.now) {
		state = "pending"
	}
	threads := min(2, i.typ.vcpus)
	x := xmlInstance{
		ID: i.id, Image: i.image.ID, State: xmlState{stateCodes[state], state}, Key: i.keyName, Index: i.index, Type: i.typ.name,
		Launched: stamp(i.launched), Placement: xmlPlacement{Zone: i.subnet.zone, Tenancy: "default"}, Monitoring: "disabled",
		Architecture: i.image.Architecture, RootType: "ebs", Root: i.image.root, Virtualization: "hvm", Token: i.token,
		Tags: tagSet(i.tags.at(c.seen)), Hypervisor: "xen", EBSOptimized: i.ebsOptimized, ENA: true, Cores: i.typ.vcpus / threads,
		Threads: threads, Capacity: "open", Platform: "Linux/UNIX", Usage: "RunInstances", Recovery: "default",
		Metadata: xmlMetadataOptions{"applied", i.metadata.tokens, i.metadata.hops, i.metadata.endpoint, i.metadata.ipv6, i.metadata.tags},
	}
	if state == "pending" {
		x.Metadata.State = "pending"
	}
	if i.monitoring {
		x.Monitoring = "enabled"
	}
	if i.spot != nil {
		x.Lifecycle, x.SpotRequest = "spot", i.spot.id
	}
	if i.profile != "" {
		_, name, _ := strings.Cut(i.profile, "/")
		x.Profile = &xmlProfile{i.profile, c.server.profiles[name]}
	}
	switch state {
	case "pending":
		x.StateReason = &xmlReason{"pending", "pending"}
	case "shutting-down", "terminated":
		x.Reason, x.StateReason = i.change, &xmlReason{i.reasonCode, i.reason}
	}
	if state != "terminated" {
		c.addNetwork(&x, i, state)
	}
	return x
}

func (c *call) addNetwork(x *xmlInstance, i *instance, state string) {
	n := i.nic
	x.Subnet, x.VPC, x.Address, x.PrivateDNS, x.Check = n.subnet.id, n.subnet.vpc.id, n.address.String(), c.dnsName(n.address), true
	x.Groups = groupRefs(i.groups)
	if n.address6.IsValid() {
		x.Address6 = n.address6.String()
	}
	nic := xmlInstanceNIC{
		ID: n.id, Subnet: n.subnet.id, VPC: n.subnet.vpc.id, Description: n.description, Owner: c.server.config.Account, Status: "in-use",
		MAC: n.mac, Address: x.Address, DNS: x.PrivateDNS, Check: true, Groups: x.Groups, Attachment: c.attachment(n),
		Addresses: c.addresses(n), Addresses6: addresses6(n), Type: "interface",
	}
	if state == "pending" {
		nic.Attachment.Status = "attaching"
		nic.Addresses[0].Association = nil
	} else if n.public.IsValid() {
		x.Public, x.PublicDNS, nic.Association = n.public.String(), c.publicName(n.public), c.association(n)
	}
	x.Interfaces = []xmlInstanceNIC{nic}
	if state == "pending" {
		// Volumes show once they are attached.
		return
	}
	for _, v := range i.disks {
		x.Devices = append(x.Devices, xmlDevice{v.plan.device, v.id, "attached", stamp(v.created), v.deleteWith})
	}
}

type describeInstancesIn struct {
	DryRun      bool
	Filters     []filter
	InstanceIds []string
	MaxResults  *int
	NextToken   *string
}

type describeInstancesOut struct {
	Reservations []xmlReservation `xml:"reservationSet>item"`
	Next         string           `xml:"nextToken,omitempty"`
}

func (c *call) instanceAttr(i *instance) attribute {
	return func(name string) ([]string, bool) {
		state := c.server.state(i, c.seen)
		networked := state != "terminated"
		one := func(value string) ([]string, bool) {
			if value == "" {
				return nil, true
			}
			return []string{value}, true
		}
		onNetwork := func(value func() string) ([]string, bool) {
			if !networked || i.nic == nil {
				return nil, true
			}
			return one(value())
		}
		switch name {
		case "architecture":
			return one(i.image.Architecture)
		case "availability-zone":
			return one(i.subnet.zone)
		case "client-token":
			return one(i.token)
		case "iam-instance-profile.arn":
			return one(i.profile)
		case "image-id":
			return one(i.image.ID)
		case "instance-id":
			return one(i.id)
		case "instance-lifecycle":
			if i.spot != nil {
				return one("spot")
			}
			return nil, true
		case "instance-state-code":
			return one(itoa(stateCodes[state]))
		case "instance-state-name":
			return one(state)
		case "instance-type":
			return one(i.typ.name)
		case "instance.group-id", "network-interface.group-id":
			var ids []string
			for _, g := range i.groups {
				if networked {
					ids = append(ids, g.id)
				}
			}
			return ids, true
		case "instance.group-name":
			var names []string
			for _, g := range i.groups {
				if networked {
					names = append(names, g.name)
				}
			}
			return names, true
		case "key-name":
			return one(i.keyName)
		case "launch-time":
			return one(stamp(i.launched))
		case "owner-id":
			return one(c.server.config.Account)
		case "private-ip-address", "network-interface.addresses.private-ip-address":
			return onNetwork(func() string { return i.nic.address.String() })
		case "network-interface.network-interface-id":
			return onNetwork(func() string { return i.nic.id })
		case "reservation-id":
			return one(i.reservation)
		case "spot-instance-request-id":
			if i.spot != nil {
				return one(i.spot.id)
			}
			return nil, true
		case "state-reason-code":
			if alive(state) {
				return nil, true
			}
			return one(i.reasonCode)
		case "subnet-id":
			return onNetwork(func() string { return i.subnet.id })
		case "vpc-id":
			return onNetwork(func() string { return i.subnet.vpc.id })
		case "metadata-options.http-tokens":
			return one(i.metadata.tokens)
		}
		return nil, false
	}
}

func noInstance() *instance {
	return &instance{image: new(image), subnet: &subnet{vpc: new(vpc)}, typ: new(instanceType)}
}

// listed returns the instances that a request names, or all that are listed.
func (c *call) listed(ids []string) ([]*instance, *apiError) {
	var found []*instance
	for _, id := range ids {
		i, refused := c.instance(id)
		if refused != nil {
			return nil, refused
		}
		if !slices.Contains(found, i) {
			found = append(found, i)
		}
	}
	if len(ids) == 0 {
		for _, i := range c.server.instances {
			if c.server.state(i, c.seen) != "" {
				found = append(found, i)
			}
		}
	}
	return found, nil
}

func describeInstances(c *call, in *describeInstancesIn) (any, *apiError) {
	p := page{in.MaxResults, in.NextToken}
	if refused := c.exclusive(in.InstanceIds, p, "instancesSet"); refused != nil {
		return nil, refused
	}
	if refused := c.checkFilters(in.Filters, c.instanceAttr(noInstance())); refused != nil {
		return nil, refused
	}
	found, refused := c.listed(in.InstanceIds)
	if refused != nil {
		return nil, refused
	}
	found = slices.DeleteFunc(found, func(i *instance) bool { return !c.match(in.Filters, i.tags.at(c.seen), c.instanceAttr(i)) })
	found, next, refused := cutPage(c, p, [2]int{5, 1000}, found, func(i *instance) string { return i.id })
	if refused != nil {
		return nil, refused
	}
	out := describeInstancesOut{Next: next}
	at := make(map[string]int)
	for _, i := range found {
		n, ok := at[i.reservation]
		if !ok {
			n = len(out.Reservations)
			at[i.reservation] = n
			out.Reservations = append(out.Reservations, xmlReservation{ID: i.reservation, Owner: c.server.config.Account})
		}
		out.Reservations[n].Instances = append(out.Reservations[n].Instances, c.xmlInstance(i))
	}
	return out, nil
}
