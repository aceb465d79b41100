package gcetest

import (
	"fmt"
	"strings"

	"google.golang.org/api/compute/v1"
)

const linkBase = "https://www.googleapis.com/compute/v1/"

// catalog is what the project finds: it never changes.
type catalog struct {
	project      string
	regions      []*compute.Region
	zones        []*compute.Zone
	machineTypes []*compute.MachineType
	diskTypes    []*compute.DiskType
	images       []*compute.Image
	networks     []*compute.Network
	subnetworks  []*compute.Subnetwork
	policies     []*compute.ResourcePolicy
}

// Catalog of every server: names for tests.
const (
	// Region has three zones: RegionA, -b and -c.
	Region = "europe-west3"
	// OtherRegion has two.
	OtherRegion = "us-central1"
	// Policy is a resource policy for placement in Region.
	Policy = "spread"
	// DualNetwork has a subnetwork of the same name in Region with IPv6.
	DualNetwork = "dual"
	// NewestImage is the newest of family debian-12 in project debian-cloud.
	NewestImage = "debian-12-bookworm-v20261010"
)

const catalogTime = "2024-01-01T00:00:00.000-08:00"

func newCatalog(project string) catalog {
	c := catalog{project: project}
	id := uint64(1)
	next := func() uint64 { id++; return id }
	link := func(format string, args ...any) string {
		return linkBase + "projects/" + project + "/" + fmt.Sprintf(format, args...)
	}
	c.networks = []*compute.Network{
		{Kind: "compute#network", Id: next(), Name: "default", AutoCreateSubnetworks: true, SelfLink: link("global/networks/default"), CreationTimestamp: catalogTime},
		{Kind: "compute#network", Id: next(), Name: DualNetwork, SelfLink: link("global/networks/dual"), CreationTimestamp: catalogTime},
	}
	for n, r := range []struct {
		name, cidr, zones string
	}{{Region, "10.156.0.0/20", "abc"}, {OtherRegion, "10.128.0.0/20", "ab"}} {
		region := &compute.Region{Kind: "compute#region", Id: next(), Name: r.name, Status: "UP", SelfLink: link("regions/%s", r.name), CreationTimestamp: catalogTime}
		for _, letter := range r.zones {
			zone := fmt.Sprintf("%s-%c", r.name, letter)
			region.Zones = append(region.Zones, link("zones/%s", zone))
			c.zones = append(c.zones, &compute.Zone{Kind: "compute#zone", Id: next(), Name: zone, Region: region.SelfLink, Status: "UP", SelfLink: link("zones/%s", zone), CreationTimestamp: catalogTime})
			c.addTypes(zone, link("zones/%s", zone), next)
		}
		c.regions = append(c.regions, region)
		subnet := &compute.Subnetwork{
			Kind: "compute#subnetwork", Id: next(), Name: "default", Network: c.networks[0].SelfLink, Region: region.SelfLink, IpCidrRange: r.cidr,
			GatewayAddress: strings.Replace(r.cidr, "0/20", "1", 1), StackType: "IPV4_ONLY", Purpose: "PRIVATE", SelfLink: link("regions/%s/subnetworks/default", r.name), CreationTimestamp: catalogTime,
		}
		c.networks[0].Subnetworks = append(c.networks[0].Subnetworks, subnet.SelfLink)
		c.subnetworks = append(c.subnetworks, subnet)
		if n == 0 {
			dual := &compute.Subnetwork{
				Kind: "compute#subnetwork", Id: next(), Name: DualNetwork, Network: c.networks[1].SelfLink, Region: region.SelfLink, IpCidrRange: "10.10.0.0/20",
				GatewayAddress: "10.10.0.1", StackType: "IPV4_IPV6", Ipv6AccessType: "INTERNAL", InternalIpv6Prefix: "fd20:0:1::/64", Purpose: "PRIVATE",
				SelfLink: link("regions/%s/subnetworks/dual", r.name), CreationTimestamp: catalogTime,
			}
			c.networks[1].Subnetworks = []string{dual.SelfLink}
			c.subnetworks = append(c.subnetworks, dual)
			c.policies = append(c.policies, &compute.ResourcePolicy{
				Kind: "compute#resourcePolicy", Id: next(), Name: Policy, Region: region.SelfLink, Status: "READY", CreationTimestamp: catalogTime,
				SelfLink:             link("regions/%s/resourcePolicies/%s", r.name, Policy),
				GroupPlacementPolicy: &compute.ResourcePolicyGroupPlacementPolicy{AvailabilityDomainCount: 4},
			})
		}
	}
	c.addImages(next)
	return c
}

func (c *catalog) addTypes(zone, link string, next func() uint64) {
	for _, t := range []struct {
		name         string
		cpus, memory int64
		architecture string
		shared       bool
	}{
		{"e2-micro", 2, 1024, "X86_64", true}, {"e2-small", 2, 2048, "X86_64", true}, {"e2-medium", 2, 4096, "X86_64", true},
		{"e2-standard-2", 2, 8192, "X86_64", false}, {"e2-standard-4", 4, 16384, "X86_64", false}, {"e2-highmem-2", 2, 16384, "X86_64", false},
		{"e2-highcpu-2", 2, 2048, "X86_64", false}, {"n2-standard-2", 2, 8192, "X86_64", false}, {"n2-standard-4", 4, 16384, "X86_64", false},
		{"n1-standard-1", 1, 3840, "X86_64", false}, {"m1-ultramem-40", 40, 984064, "X86_64", false}, {"c3-standard-4", 4, 16384, "X86_64", false},
		{"t2a-standard-1", 1, 4096, "ARM64", false}, {"t2a-standard-2", 2, 8192, "ARM64", false},
	} {
		if strings.HasPrefix(t.name, "c3-") && !strings.HasSuffix(zone, "-a") {
			continue // as some types are in some zones only
		}
		c.machineTypes = append(c.machineTypes, &compute.MachineType{
			Kind: "compute#machineType", Id: next(), Name: t.name, GuestCpus: t.cpus, MemoryMb: t.memory, Architecture: t.architecture,
			IsSharedCpu: t.shared, Zone: zone, SelfLink: link + "/machineTypes/" + t.name, MaximumPersistentDisks: 16,
		})
	}
	for _, name := range []string{"pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced"} {
		c.diskTypes = append(c.diskTypes, &compute.DiskType{Kind: "compute#diskType", Id: next(), Name: name, Zone: link, SelfLink: link + "/diskTypes/" + name})
	}
}

func (c *catalog) addImages(next func() uint64) {
	for _, i := range []struct{ project, name, family, architecture, created, deprecated string }{
		{"debian-cloud", "debian-11-bullseye-v20240101", "debian-11", "X86_64", "2024-01-01T00:00:00.000-08:00", ""},
		{"debian-cloud", "debian-12-bookworm-v20260101", "debian-12", "X86_64", "2026-01-01T00:00:00.000-08:00", "DEPRECATED"},
		{"debian-cloud", NewestImage, "debian-12", "X86_64", "2026-10-10T00:00:00.000-07:00", ""},
		{"debian-cloud", "debian-12-bookworm-arm64-v20261010", "debian-12-arm64", "ARM64", "2026-10-10T00:00:00.000-07:00", ""},
		{c.project, "golden-1", "golden", "X86_64", "2026-02-01T00:00:00.000-08:00", ""},
		{c.project, "golden-2", "golden", "X86_64", "2026-03-01T00:00:00.000-08:00", ""},
	} {
		image := &compute.Image{
			Kind: "compute#image", Id: next(), Name: i.name, Family: i.family, Architecture: i.architecture, CreationTimestamp: i.created, Status: "READY",
			DiskSizeGb: 10, SourceType: "RAW", SelfLink: linkBase + "projects/" + i.project + "/global/images/" + i.name,
		}
		if i.deprecated != "" {
			image.Deprecated = &compute.DeprecationStatus{State: i.deprecated}
		}
		c.images = append(c.images, image)
	}
}

// link completes a full or partial URL of a resource to its self link.
func (c *catalog) link(url string) string {
	for _, prefix := range []string{"https://compute.googleapis.com/compute/v1/", linkBase, "https://www.googleapis.com/compute/v1/"} {
		url = strings.TrimPrefix(url, prefix)
	}
	url = strings.TrimPrefix(url, "/")
	if !strings.HasPrefix(url, "projects/") {
		url = "projects/" + c.project + "/" + url
	}
	return linkBase + url
}

func find[T any](all []T, link string, of func(T) string) (found T, ok bool) {
	for _, x := range all {
		if of(x) == link {
			return x, true
		}
	}
	return found, false
}
