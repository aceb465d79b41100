package ec2test

import (
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
)

// maxUserData is in bytes before encoding (Amazon EC2 User Guide, "Run commands when you launch an EC2 instance").
const maxUserData = 16384

type runIn struct {
	BlockDeviceMappings               []deviceIn
	ImageId                           string
	InstanceType                      string
	Ipv6AddressCount                  int
	KeyName                           string
	MaxCount, MinCount                int
	Monitoring                        struct{ Enabled bool }
	Placement                         struct{ AvailabilityZone, Tenancy string }
	SecurityGroupIds, SecurityGroups  []string
	SubnetId                          string
	UserData                          string
	ClientToken                       string
	DisableApiTermination             bool
	DryRun                            bool
	EbsOptimized                      bool
	IamInstanceProfile                *struct{ Arn, Name string }
	InstanceInitiatedShutdownBehavior string
	NetworkInterfaces                 []nicIn
	PrivateIpAddress                  string
	TagSpecifications                 []tagSpec
	InstanceMarketOptions             *marketIn
	CreditSpecification               *struct{ CpuCredits string }
	MetadataOptions                   *metadataIn
}

type metadataIn struct {
	HttpTokens, HttpEndpoint, HttpProtocolIpv6, InstanceMetadataTags string
	HttpPutResponseHopLimit                                          *int
}

type metadataOptions struct {
	tokens, endpoint, ipv6, tags string
	hops                         int
}

// plan is a checked RunInstances request.
type plan struct {
	in       *runIn
	image    *image
	typ      *instanceType
	subnet   *subnet
	groups   []*group
	userData []byte
	tags     map[string]map[string]string
	metadata metadataOptions
	profile  string
	nic      nicPlan
	disks    []diskPlan
	spot     *spotPlan
}

// launch is what a client token stands for.
type launch struct {
	params      string
	reservation string
	instances   []*instance
}

func runInstances(c *call, in *runIn) (any, *apiError) {
	if len(in.ClientToken) > 64 || strings.ContainsFunc(in.ClientToken, func(r rune) bool { return r > 126 || r < 32 }) {
		return nil, refuse("InvalidClientToken", "The client token must be at most 64 ASCII characters")
	}
	// A token is known before anything else is looked at: what the first request named may be gone by now.
	key, params := c.tokenKey(in), c.tokenParams()
	if in.ClientToken != "" {
		if earlier := c.server.tokens[key]; earlier != nil && !c.forgotten(earlier) {
			return c.replay(earlier, params)
		}
	}
	p, refused := c.plan(in)
	if refused != nil {
		return nil, refused
	}
	if p.subnet == nil {
		if p.subnet, refused = c.anySubnet(p); refused != nil {
			return nil, refused
		}
	}
	n, refused := c.room(p)
	if refused != nil {
		return nil, refused
	}
	if refused := c.limitResources(n); refused != nil {
		return nil, refused
	}
	l := &launch{params: params, reservation: c.server.newID("r")}
	for index := range n {
		l.instances = append(l.instances, c.launch(p, l.reservation, index))
	}
	if in.ClientToken != "" {
		c.server.tokens[key] = l
	}
	return c.reservation(l.reservation, l.instances), nil
}

// tokenKey is the scope of a client token: the zone where the request names one by zone or subnet, else the region
// (Amazon EC2 Developer Guide, "Ensuring idempotency in Amazon EC2 API requests", RunInstances idempotency).
func (c *call) tokenKey(in *runIn) string {
	scope, id := in.Placement.AvailabilityZone, in.SubnetId
	if len(in.NetworkInterfaces) > 0 {
		id = in.NetworkInterfaces[0].SubnetId
	}
	for _, n := range c.server.subnets {
		if n.id == id {
			scope = n.zone
		}
	}
	return scope + " " + in.ClientToken
}

// tokenParams are all parameters of the request; repeated requests must have the same.
func (c *call) tokenParams() string {
	data, _ := json.Marshal(c.params)
	return digest(data)
}

// forgotten says whether a token's instances are terminated for so long that it is not known any more.
func (c *call) forgotten(l *launch) bool {
	return !slices.ContainsFunc(l.instances, func(i *instance) bool {
		return i.terminated.IsZero() || c.now.Before(i.terminated.Add(c.server.config.TokenLife))
	})
}

func (c *call) replay(l *launch, params string) (any, *apiError) {
	if l.params != params {
		return nil, refuse("IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).")
	}
	ended := !slices.ContainsFunc(l.instances, func(i *instance) bool { return i.stopping.IsZero() || c.now.Before(i.stopping) })
	if ended && !c.server.config.ReplayTerminated {
		return nil, refuse("IdempotentInstanceTerminated", "The client token you have provided is associated with a terminated instance. Please use a different client token.")
	}
	return c.reservation(l.reservation, l.instances), nil
}

// plan checks all that does not depend on room.
func (c *call) plan(in *runIn) (*plan, *apiError) {
	p := &plan{in: in}
	steps := []func(*call) *apiError{
		p.checkCounts, p.checkImage, p.checkUserData, p.checkNetwork, p.checkDisks, p.checkMarket, p.checkTags, p.checkMetadata, p.checkIdentity,
	}
	for _, step := range steps {
		if refused := step(c); refused != nil {
			return nil, refused
		}
	}
	return p, nil
}

func (p *plan) checkCounts(c *call) *apiError {
	if p.in.MinCount < 1 || p.in.MaxCount < 1 {
		return c.wrong("InvalidParameterValue", "Value for parameter minCount or maxCount is invalid. Expecting a value greater than 0.")
	}
	if p.in.MinCount > p.in.MaxCount {
		return c.wrong("InvalidParameterValue", "maxCount must be at least minCount")
	}
	return nil
}

func (p *plan) checkImage(c *call) *apiError {
	if p.in.ImageId == "" {
		return c.wrong("MissingParameter", "The request must contain the parameter ImageId")
	}
	if p.in.InstanceType == "" {
		return c.wrong("MissingParameter", "The default instance type is not offered here: name one")
	}
	var refused *apiError
	if p.image, refused = c.image(p.in.ImageId); refused != nil {
		return refused
	}
	if p.image.State != "available" {
		return refuse("InvalidAMIID.Unavailable", "The image ID '%s' is not available", p.image.ID)
	}
	if p.typ = c.server.typeNamed(p.in.InstanceType); p.typ == nil {
		return refuse("InvalidParameterValue", "Invalid value '%s' for InstanceType.", p.in.InstanceType)
	}
	if !slices.Contains(p.typ.arch, p.image.Architecture) {
		return refuse("InvalidParameterValue", "The architecture '%s' of the specified instance type does not match the architecture '%s' of the specified AMI.",
			strings.Join(p.typ.arch, ","), p.image.Architecture)
	}
	if t := p.in.Placement.Tenancy; t != "" && t != "default" {
		return c.wrong("UnsupportedOperation", "not implemented here: tenancy")
	}
	return nil
}

func (p *plan) checkUserData(*call) *apiError {
	data, err := base64.StdEncoding.DecodeString(p.in.UserData)
	if err != nil {
		return refuse("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
	}
	if len(data) > maxUserData {
		return refuse("InvalidParameterValue", "User data is limited to %d bytes", maxUserData)
	}
	p.userData = data
	return nil
}

func (p *plan) checkTags(c *call) (refused *apiError) {
	allowed := []string{"instance", "volume", "network-interface"}
	if p.spot != nil {
		allowed = append(allowed, "spot-instances-request")
	}
	p.tags, refused = tagsFor(p.in.TagSpecifications, allowed...)
	return refused
}

func (p *plan) checkMetadata(c *call) *apiError {
	p.metadata = metadataOptions{tokens: "optional", endpoint: "enabled", ipv6: "disabled", tags: "disabled", hops: 1}
	m := p.in.MetadataOptions
	if m == nil {
		return nil
	}
	for _, x := range [...]struct {
		to   *string
		from string
	}{{&p.metadata.tokens, m.HttpTokens}, {&p.metadata.endpoint, m.HttpEndpoint}, {&p.metadata.ipv6, m.HttpProtocolIpv6}, {&p.metadata.tags, m.InstanceMetadataTags}} {
		if x.from != "" {
			*x.to = x.from
		}
	}
	if m.HttpPutResponseHopLimit != nil {
		p.metadata.hops = *m.HttpPutResponseHopLimit
		if p.metadata.hops < 1 || p.metadata.hops > 64 {
			return c.wrong("InvalidParameterValue", "HttpPutResponseHopLimit must be between 1 and 64")
		}
	}
	return nil
}

func (p *plan) checkIdentity(c *call) *apiError {
	if p.in.KeyName != "" && c.server.keyPairs[p.in.KeyName] == "" {
		return refuse("InvalidKeyPair.NotFound", "The key pair '%s' does not exist", p.in.KeyName)
	}
	if b := p.in.InstanceInitiatedShutdownBehavior; p.spot != nil && b == "stop" {
		return refuse("InvalidParameterCombination", "Instance initiated shutdown behavior 'stop' is not supported for one-time spot instances")
	}
	profile := p.in.IamInstanceProfile
	if profile == nil {
		return nil
	}
	name := profile.Name
	prefix := "arn:aws:iam::" + c.server.config.Account + ":instance-profile/"
	switch {
	case name != "" && profile.Arn != "":
		return refuse("InvalidParameterCombination", "The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'")
	case profile.Arn != "":
		var ok bool
		if name, ok = strings.CutPrefix(profile.Arn, prefix); !ok {
			return refuse("InvalidIamInstanceProfileArn.Malformed", "The specified IAM instance profile ARN is not valid")
		}
	}
	if c.server.profiles[name] == "" {
		return refuse("InvalidParameterValue", "Value (%s) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", name)
	}
	p.profile = prefix + name
	return nil
}

// launch makes one instance and all that belongs to it.
func (c *call) launch(p *plan, reservation string, index int) *instance {
	s := c.server
	i := &instance{
		id: s.newID("i"), reservation: reservation, token: p.in.ClientToken, index: index, typ: p.typ, image: p.image,
		subnet: p.subnet, groups: p.groups, launched: c.now, running: c.now.Add(s.config.BootTime), userData: p.userData,
		keyName: p.in.KeyName, profile: p.profile, metadata: p.metadata, monitoring: p.in.Monitoring.Enabled,
		protected: p.in.DisableApiTermination, ebsOptimized: p.in.EbsOptimized, tags: newTags(c.now, p.tags["instance"]),
	}
	c.makeInterface(i, p)
	for _, d := range p.disks {
		v := &volume{
			id: s.newID("vol"), plan: d, zone: p.subnet.zone, instance: i, created: c.now, deleteWith: d.deleteWith, tags: newTags(c.now, p.tags["volume"]),
		}
		i.disks = append(i.disks, v)
		s.volumes = append(s.volumes, v)
	}
	if p.spot != nil {
		i.spot = &spotRequest{id: "sir-" + s.hex(8), plan: *p.spot, instance: i, created: c.now, tags: newTags(c.now, p.tags["spot-instances-request"])}
		s.spots = append(s.spots, i.spot)
	}
	s.instances = append(s.instances, i)
	s.byID[i.id] = i
	return i
}

// anySubnet chooses a default subnet, as EC2 does where a request names none.
func (c *call) anySubnet(p *plan) (*subnet, *apiError) {
	var found []*subnet
	for _, n := range c.server.subnets {
		if n.standard && (p.in.Placement.AvailabilityZone == "" || p.in.Placement.AvailabilityZone == n.zone) && slices.Contains(p.typ.zones, n.zone) {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return nil, refuse("Unsupported", "Your requested instance type (%s) is not supported in your requested Availability Zone (%s).", p.typ.name, p.in.Placement.AvailabilityZone)
	}
	return found[c.server.rand.IntN(len(found))], nil
}

// room is how many instances can be launched: at least MinCount, at most MaxCount.
func (c *call) room(p *plan) (int, *apiError) {
	s, n := c.server, p.in.MaxCount
	if !slices.Contains(p.typ.zones, p.subnet.zone) {
		return 0, refuse("Unsupported", "Your requested instance type (%s) is not supported in your requested Availability Zone (%s).", p.typ.name, p.subnet.zone)
	}
	if free := c.free(p.subnet); free < n {
		if n = free; n < p.in.MinCount {
			return 0, refuse("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet '%s' to satisfy the requested number of instances.", p.subnet.id)
		}
	}
	quota, code := s.config.VCPUs, "VcpuLimitExceeded"
	if p.spot != nil {
		quota, code = s.config.SpotVCPUs, "MaxSpotInstanceCountExceeded"
	}
	used := 0
	for _, i := range s.instances {
		if (i.spot != nil) == (p.spot != nil) && alive(s.state(i, c.now)) {
			used += i.typ.vcpus
		}
	}
	if left := (quota - used) / p.typ.vcpus; left < n {
		if n = left; n < p.in.MinCount {
			return 0, refuse(code, "You have requested more vCPU capacity than your current vCPU limit of %d allows for the instance bucket that the specified instance type belongs to.", quota)
		}
	}
	if left := c.capacity(p, n); left < n {
		if n = left; n < p.in.MinCount {
			return 0, refuse("InsufficientInstanceCapacity", "We currently do not have sufficient %s capacity in the Availability Zone you requested (%s).", p.typ.name, p.subnet.zone)
		}
	}
	// What was found is taken: the room that a test leaves is for further instances.
	for _, key := range capacityKeys(p) {
		if left, ok := s.capacity[key]; ok {
			s.capacity[key] = left - n
		}
	}
	return n, nil
}

func capacityKeys(p *plan) []capacityKey {
	spots := []bool{false}
	if p.spot != nil {
		spots = append(spots, true)
	}
	var keys []capacityKey
	for _, spot := range spots {
		for _, name := range [...]string{p.typ.name, ""} {
			for _, zone := range [...]string{p.subnet.zone, ""} {
				keys = append(keys, capacityKey{name, zone, spot})
			}
		}
	}
	return keys
}

func (c *call) capacity(p *plan, n int) int {
	for _, key := range capacityKeys(p) {
		if left, ok := c.server.capacity[key]; ok {
			n = min(n, left)
		}
	}
	return n
}

func parseAddr(text string, in netip.Prefix) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a, err == nil && in.Contains(a)
}
