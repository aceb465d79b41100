package ec2test

import (
	"slices"
	"time"
)

// Owners of the public images.
const (
	ownerAmazon = "137112412989"
	ownerDebian = "136693071363"
	ownerUbuntu = "099720109477"
)

// makeCatalog makes the instance types, images and parameters that every server has. Types cost what their sizes suggest:
// EC2 tells no prices, so there are none.
func (s *Server) makeCatalog() {
	intel, arm := []string{"x86_64"}, []string{"arm64"}
	add := func(name string, vcpus, mib int, arch []string, set func(*instanceType)) {
		t := &instanceType{
			name: name, vcpus: vcpus, mib: mib, arch: arch, hypervisor: "nitro", current: true, spot: true,
			zones: s.zones(), clock: 3.1,
		}
		if set != nil {
			set(t)
		}
		s.types = append(s.types, t)
	}
	burst := func(t *instanceType) { t.burstable = true }
	old := func(t *instanceType) { t.current, t.hypervisor, t.clock = false, "xen", 2.4 }
	add("t2.micro", 1, 1024, []string{"i386", "x86_64"}, func(t *instanceType) { t.hypervisor, t.burstable, t.free = "xen", true, true })
	add("t3.micro", 2, 1024, intel, burst)
	add("t3.small", 2, 2048, intel, burst)
	add("t3.medium", 2, 4096, intel, burst)
	add("t3.large", 2, 8192, intel, burst)
	add("t4g.micro", 2, 1024, arm, burst)
	add("t4g.small", 2, 2048, arm, burst)
	add("m4.large", 2, 8192, intel, old)
	add("m5.large", 2, 8192, intel, nil)
	add("m5.xlarge", 4, 16384, intel, nil)
	add("m5.2xlarge", 8, 32768, intel, nil)
	add("m6i.large", 2, 8192, intel, nil)
	add("m6i.xlarge", 4, 16384, intel, nil)
	add("m6g.large", 2, 8192, arm, func(t *instanceType) { t.zones = s.zones()[:2] })
	add("m7i.large", 2, 8192, intel, nil)
	add("c5.large", 2, 4096, intel, nil)
	add("c6i.large", 2, 4096, intel, nil)
	add("c6i.xlarge", 4, 8192, intel, nil)
	add("r5.large", 2, 16384, intel, nil)
	add("r6i.large", 2, 16384, intel, nil)
	add("m5.metal", 96, 393216, intel, func(t *instanceType) { t.metal, t.hypervisor, t.zones, t.spot = true, "", s.zones()[:1], false })

	day := func(text string) time.Time { t, _ := time.Parse(time.DateOnly, text); return t }
	image := func(owner, alias, name, arch, created string, size int) string {
		return s.putImage(Image{Name: name, Owner: owner, Alias: alias, Architecture: arch, Created: day(created), RootSize: size})
	}
	image(ownerDebian, "", "debian-12-amd64-20240507-1740", "x86_64", "2024-05-07", 8)
	debian := image(ownerDebian, "", "debian-12-amd64-20240717-1811", "x86_64", "2024-07-17", 8)
	debianARM := image(ownerDebian, "", "debian-12-arm64-20240717-1811", "arm64", "2024-07-17", 8)
	image(ownerDebian, "", "debian-11-amd64-20240717-1811", "x86_64", "2024-07-17", 8)
	s.putImage(Image{Name: "debian-10-amd64-20220328-962", Owner: ownerDebian, Created: day("2022-03-28"), Deprecated: true})
	ubuntu := image(ownerUbuntu, "", "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20240614", "x86_64", "2024-06-14", 8)
	image(ownerUbuntu, "", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20240701", "x86_64", "2024-07-01", 8)
	amazon := image(ownerAmazon, "amazon", "al2023-ami-2023.5.20240708.0-kernel-6.1-x86_64", "x86_64", "2024-07-08", 8)
	// Anybody can give an image any name: only the owner tells it from the real one.
	image("666666666666", "", "debian-12-amd64-20991231-9999", "x86_64", "2024-07-30", 8)

	s.parameters["/aws/service/debian/release/12/latest/amd64"] = debian
	s.parameters["/aws/service/debian/release/12/latest/arm64"] = debianARM
	s.parameters["/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"] = ubuntu
	s.parameters["/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"] = amazon
}

// instanceType is a size of instances, and the zones that have it.
type instanceType struct {
	name                                  string
	vcpus, mib                            int
	arch                                  []string
	hypervisor                            string
	clock                                 float64
	current, burstable, free, spot, metal bool
	zones                                 []string
}

func (s *Server) typeNamed(name string) *instanceType {
	for _, t := range s.types {
		if t.name == name {
			return t
		}
	}
	return nil
}

type describeTypesIn struct {
	DryRun        bool
	Filters       []filter
	InstanceTypes []string
	MaxResults    *int
	NextToken     *string
}

type xmlType struct {
	Name           string   `xml:"instanceType"`
	Current        bool     `xml:"currentGeneration"`
	Free           bool     `xml:"freeTierEligible"`
	Usage          []string `xml:"supportedUsageClasses>item"`
	Roots          []string `xml:"supportedRootDeviceTypes>item"`
	Virtualization []string `xml:"supportedVirtualizationTypes>item"`
	Metal          bool     `xml:"bareMetal"`
	Hypervisor     string   `xml:"hypervisor,omitempty"`
	Arch           []string `xml:"processorInfo>supportedArchitectures>item"`
	Clock          float64  `xml:"processorInfo>sustainedClockSpeedInGhz"`
	VCPUs          int      `xml:"vCpuInfo>defaultVCpus"`
	Cores          int      `xml:"vCpuInfo>defaultCores"`
	Threads        int      `xml:"vCpuInfo>defaultThreadsPerCore"`
	MiB            int      `xml:"memoryInfo>sizeInMiB"`
	Storage        bool     `xml:"instanceStorageSupported"`
	EBSOptimized   string   `xml:"ebsInfo>ebsOptimizedSupport"`
	EBSEncryption  string   `xml:"ebsInfo>encryptionSupport"`
	NVMe           string   `xml:"ebsInfo>nvmeSupport"`
	NetPerformance string   `xml:"networkInfo>networkPerformance"`
	NetInterfaces  int      `xml:"networkInfo>maximumNetworkInterfaces"`
	NetAddresses   int      `xml:"networkInfo>ipv4AddressesPerInterface"`
	NetAddresses6  int      `xml:"networkInfo>ipv6AddressesPerInterface"`
	NetIPv6        bool     `xml:"networkInfo>ipv6Supported"`
	NetENA         string   `xml:"networkInfo>enaSupport"`
	Strategies     []string `xml:"placementGroupInfo>supportedStrategies>item"`
	Hibernation    bool     `xml:"hibernationSupported"`
	Burstable      bool     `xml:"burstablePerformanceSupported"`
	Dedicated      bool     `xml:"dedicatedHostsSupported"`
	AutoRecovery   bool     `xml:"autoRecoverySupported"`
	BootModes      []string `xml:"supportedBootModes>item"`
}

type describeTypesOut struct {
	Types []xmlType `xml:"instanceTypeSet>item"`
	Next  string    `xml:"nextToken,omitempty"`
}

func (t *instanceType) attr(name string) ([]string, bool) {
	switch name {
	case "auto-recovery-supported":
		return []string{boolText(!t.metal)}, true
	case "bare-metal":
		return []string{boolText(t.metal)}, true
	case "burstable-performance-supported":
		return []string{boolText(t.burstable)}, true
	case "current-generation":
		return []string{boolText(t.current)}, true
	case "free-tier-eligible":
		return []string{boolText(t.free)}, true
	case "hypervisor":
		if t.hypervisor == "" {
			return nil, true
		}
		return []string{t.hypervisor}, true
	case "instance-storage-supported":
		return []string{"false"}, true
	case "instance-type":
		return []string{t.name}, true
	case "memory-info.size-in-mib":
		return []string{itoa(t.mib)}, true
	case "processor-info.supported-architecture":
		return t.arch, true
	case "supported-root-device-type":
		return []string{"ebs"}, true
	case "supported-usage-class":
		return t.usage(), true
	case "supported-virtualization-type":
		return []string{"hvm"}, true
	case "vcpu-info.default-vcpus":
		return []string{itoa(t.vcpus)}, true
	}
	return nil, false
}

func (t *instanceType) usage() []string {
	if t.spot {
		return []string{"on-demand", "spot"}
	}
	return []string{"on-demand"}
}

func describeTypes(c *call, in *describeTypesIn) (any, *apiError) {
	p := page{in.MaxResults, in.NextToken}
	if refused := c.exclusive(in.InstanceTypes, p, "instanceTypes"); refused != nil {
		return nil, refused
	}
	if refused := c.checkFilters(in.Filters, new(instanceType).attr); refused != nil {
		return nil, refused
	}
	for _, name := range in.InstanceTypes {
		if c.server.typeNamed(name) == nil {
			return nil, refuse("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", name)
		}
	}
	var found []*instanceType
	for _, t := range c.server.types {
		if (len(in.InstanceTypes) == 0 || slices.Contains(in.InstanceTypes, t.name)) && c.match(in.Filters, nil, t.attr) {
			found = append(found, t)
		}
	}
	found, next, refused := cutPage(c, p, [2]int{5, 100}, found, func(t *instanceType) string { return t.name })
	if refused != nil {
		return nil, refused
	}
	out := describeTypesOut{Next: next}
	for _, t := range found {
		nvme, ena := "required", "required"
		if t.hypervisor == "xen" {
			nvme, ena = "unsupported", "supported"
		}
		threads := min(2, t.vcpus)
		out.Types = append(out.Types, xmlType{
			Name: t.name, Current: t.current, Free: t.free, Usage: t.usage(), Roots: []string{"ebs"}, Virtualization: []string{"hvm"},
			Metal: t.metal, Hypervisor: t.hypervisor, Arch: t.arch, Clock: t.clock, VCPUs: t.vcpus, Cores: t.vcpus / threads,
			Threads: threads, MiB: t.mib, EBSOptimized: "default", EBSEncryption: "supported", NVMe: nvme,
			NetPerformance: "Up to 10 Gigabit", NetInterfaces: 3, NetAddresses: 10, NetAddresses6: 10, NetIPv6: true, NetENA: ena,
			Strategies: []string{"partition", "spread"}, Burstable: t.burstable, AutoRecovery: !t.metal, BootModes: []string{"legacy-bios", "uefi"},
		})
	}
	return out, nil
}

type describeOfferingsIn struct {
	DryRun       bool
	LocationType string
	Filters      []filter
	MaxResults   *int
	NextToken    *string
}

type xmlOffering struct {
	Type     string `xml:"instanceType"`
	Kind     string `xml:"locationType"`
	Location string `xml:"location"`
}

type describeOfferingsOut struct {
	Offerings []xmlOffering `xml:"instanceTypeOfferingSet>item"`
	Next      string        `xml:"nextToken,omitempty"`
}

func (o xmlOffering) attr(name string) ([]string, bool) {
	switch name {
	case "instance-type":
		return []string{o.Type}, true
	case "location":
		return []string{o.Location}, true
	}
	return nil, false
}

func describeOfferings(c *call, in *describeOfferingsIn) (any, *apiError) {
	if refused := c.checkFilters(in.Filters, xmlOffering{}.attr); refused != nil {
		return nil, refused
	}
	kind := in.LocationType
	if kind == "" {
		kind = "region"
	}
	var found []xmlOffering
	for _, t := range c.server.types {
		var locations []string
		switch kind {
		case "region":
			locations = []string{c.server.config.Region}
		case "availability-zone":
			locations = t.zones
		case "availability-zone-id":
			for _, zone := range t.zones {
				locations = append(locations, zoneID(zone))
			}
		}
		for _, l := range locations {
			if o := (xmlOffering{t.name, kind, l}); c.match(in.Filters, nil, o.attr) {
				found = append(found, o)
			}
		}
	}
	found, next, refused := cutPage(c, page{in.MaxResults, in.NextToken}, [2]int{5, 1000}, found, func(o xmlOffering) string { return o.Type + " " + o.Location })
	if refused != nil {
		return nil, refused
	}
	return describeOfferingsOut{found, next}, nil
}
