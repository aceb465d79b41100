package gce

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	// policyExtra is where a choice has the resource policy that is its placement group.
	policyExtra = "resource_policy"
	// maxChoices of an offer.
	maxChoices = 64
)

// Resolve implements provider.Provider.
func (p *Provider) Resolve(ctx context.Context, w *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	if w.GetPlacement().GetKeyPair() != "" {
		return nil, provider.Errorf(provider.Invalid, "gce: there are no key pairs here: ssh access is the pool's users'")
	}
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	region, zones, err := p.place(ctx, api, w)
	if err != nil {
		return nil, err
	}
	network, err := p.network(ctx, api, w.GetNetwork().GetSpec())
	if err != nil {
		return nil, err
	}
	image, err := p.image(ctx, api, w)
	if err != nil {
		return nil, err
	}
	if err := p.checkDisks(ctx, api, w, image, zones[0]); err != nil {
		return nil, err
	}
	policy, err := p.policy(ctx, api, w.GetPlacement().GetGroup())
	if err != nil {
		return nil, err
	}
	types, err := p.hardware(ctx, api, w, zones)
	if err != nil {
		return nil, err
	}
	offer := &provisionrv1.Offer{}
	if w.GetSpot().GetMaxPrice() != "" {
		offer.Warnings = append(offer.Warnings, "Google has no maximum price for spot instances: max_price is ignored")
	}
	var all []candidate
	for _, spot := range markets(w) {
		for _, subnet := range subnetsOf(network, w) {
			for _, t := range types {
				all = append(all, candidate{t.MachineType, p.choice(w, image, network, subnet, t, policy, spot)})
			}
		}
	}
	if len(all) == 0 {
		return nil, provider.Errorf(provider.Invalid, "gce: no subnetwork of network %s in %s has IPv6", network.Name, p.region)
	}
	if offer.Choices, err = p.affordable(ctx, api, region, w, image, all); err != nil {
		return nil, err
	}
	if left := len(all) - len(offer.Choices); left > 0 && len(offer.Choices) < maxChoices {
		offer.Warnings = append(offer.Warnings, fmt.Sprintf("the quota of %s does not allow %d of %d choices", p.region, left, len(all)))
	}
	return offer, nil
}

// candidate is a choice whose quota has not been looked at.
type candidate struct {
	machineType *compute.MachineType
	choice      *provisionrv1.Choice
}

// markets to try, in order: true is spot.
func markets(w *provisionrv1.Wish) []bool {
	switch {
	case w.GetSpot() == nil:
		return []bool{false}
	case w.GetSpot().GetFallback():
		return []bool{true, false}
	}
	return []bool{true}
}

// subnetsOf are those that can be used: with IPv6 if that is wanted. A network of the old kind has none.
func subnetsOf(n *network, w *provisionrv1.Wish) []string {
	var links []string
	for _, s := range n.subnets {
		if !w.GetPlacement().GetIpv6() || s.StackType == "IPV4_IPV6" {
			links = append(links, path(s.SelfLink))
		}
	}
	if len(n.subnets) == 0 && !w.GetPlacement().GetIpv6() {
		return []string{""}
	}
	return links
}

func (p *Provider) choice(w *provisionrv1.Wish, image *compute.Image, n *network, subnet string, t typed, policy string, spot bool) *provisionrv1.Choice {
	c := &provisionrv1.Choice{
		Image: path(image.SelfLink), ImageName: image.Name, Type: t.Name, TypeName: t.Name, Zone: t.zone, Network: path(n.SelfLink), Subnet: subnet,
		Groups: []string{tag(p.cluster, w.GetPool())}, Spot: spot, Architecture: architectureOf(w),
		Cpus: uint32(t.GuestCpus), MemoryMib: uint32(t.MemoryMb), PriceClass: "on-demand",
	}
	if spot {
		c.PriceClass = "spot"
	}
	if policy != "" {
		c.Extra = map[string]string{policyExtra: policy}
	}
	return c
}

// place finds the region, with its quotas of this moment, and the zones to use, in order.
func (p *Provider) place(ctx context.Context, api *compute.Service, w *provisionrv1.Wish) (*compute.Region, []string, error) {
	region, err := p.regionOf(ctx, api)
	if err != nil {
		return nil, nil, err
	}
	known, err := p.zonesOf(ctx, api, region)
	if err != nil {
		return nil, nil, err
	}
	zones := w.GetPlacement().GetZones()
	if len(zones) == 0 {
		zones = known
	}
	for _, zone := range zones {
		if !slices.Contains(known, zone) {
			return nil, nil, p.unlike("zone", zone, "region "+p.region, known, nil)
		}
	}
	if len(zones) == 0 {
		return nil, nil, provider.Errorf(provider.Invalid, "gce: region %s has no zones", p.region)
	}
	return region, zones, nil
}

func (p *Provider) regionOf(ctx context.Context, api *compute.Service) (*compute.Region, error) {
	region, err := api.Regions.Get(p.project, p.region).Context(ctx).Do()
	if absent(err, p.region) {
		names, listErr := collect(func(token string) ([]string, string, error) {
			page, err := api.Regions.List(p.project).PageToken(token).Context(ctx).Do()
			if err != nil {
				return nil, "", err
			}
			return namesOf(page.Items, func(r *compute.Region) string { return r.Name }), page.NextPageToken, nil
		})
		return nil, p.unlike("region", p.region, "project "+p.project, names, listErr)
	}
	if p.lacks(ctx, err, "the region is not checked, nor its quotas") {
		return &compute.Region{Name: p.region}, nil
	}
	return region, p.failed("look for region "+p.region, err)
}

// zones of the region.
func (p *Provider) zones(ctx context.Context, api *compute.Service) ([]string, error) {
	return cached(&p.cache, "zones", func() ([]string, error) {
		region, err := p.regionOf(ctx, api)
		if err != nil {
			return nil, err
		}
		return p.zonesOf(ctx, api, region)
	})
}

// zonesOf a region are those that it names itself; where a server does not tell, those of all zones that are called so.
func (p *Provider) zonesOf(ctx context.Context, api *compute.Service, region *compute.Region) ([]string, error) {
	if len(region.Zones) > 0 {
		return namesOf(region.Zones, base), nil
	}
	zones, err := collect(func(token string) ([]*compute.Zone, string, error) {
		page, err := api.Zones.List(p.project).MaxResults(listPage).PageToken(token).Context(ctx).Do()
		if err != nil {
			return nil, "", err
		}
		return page.Items, page.NextPageToken, nil
	})
	names := slices.DeleteFunc(namesOf(zones, func(z *compute.Zone) string { return z.Name }), func(name string) bool { return !p.inRegion(name) })
	slices.Sort(names)
	return names, p.failed("list zones", err)
}

// checkDisks looks whether disks are of types that exist, and the root disk has room for the image.
func (p *Provider) checkDisks(ctx context.Context, api *compute.Service, w *provisionrv1.Wish, image *compute.Image, zone string) error {
	if size := int64(w.GetHardware().GetDiskGib()); size > 0 && size < image.DiskSizeGb {
		return provider.Errorf(provider.Invalid, "gce: a root disk of %d GiB has no room for image %s, which needs %d", size, image.Name, image.DiskSizeGb)
	}
	for _, d := range append([]*provisionrv1.Disk{w.GetHardware().GetRootDisk()}, w.GetHardware().GetDisks()...) {
		if d.GetType() == "" {
			continue
		}
		known, err := cached(&p.cache, "disk types "+zone, func() ([]string, error) {
			names, err := collect(func(token string) ([]string, string, error) {
				page, err := api.DiskTypes.List(p.project, zone).MaxResults(listPage).PageToken(token).Context(ctx).Do()
				if err != nil {
					return nil, "", err
				}
				return namesOf(page.Items, func(t *compute.DiskType) string { return t.Name }), page.NextPageToken, nil
			})
			if p.lacks(ctx, err, "disk types are not checked") {
				return nil, nil
			}
			return names, p.failed("list the disk types of "+zone, err)
		})
		if err != nil {
			return err
		}
		if len(known) > 0 && !slices.Contains(known, d.GetType()) {
			return p.unlike("disk type", d.GetType(), zone, known, nil)
		}
	}
	return nil
}

// policy finds the resource policy that is a placement group, by name or URL.
func (p *Provider) policy(ctx context.Context, api *compute.Service, group string) (string, error) {
	if group == "" {
		return "", nil
	}
	name := base(strings.TrimSuffix(group, "/"))
	found, err := api.ResourcePolicies.Get(p.project, p.region, name).Context(ctx).Do()
	if absent(err, name) {
		names, listErr := collect(func(token string) ([]string, string, error) {
			page, err := api.ResourcePolicies.List(p.project, p.region).PageToken(token).Context(ctx).Do()
			if err != nil {
				return nil, "", err
			}
			return namesOf(page.Items, func(r *compute.ResourcePolicy) string { return r.Name }), page.NextPageToken, nil
		})
		return "", p.unlike("resource policy", name, "region "+p.region, names, listErr)
	}
	if err != nil {
		return "", p.failed("look for resource policy "+name, err)
	}
	return path(found.SelfLink), nil
}
