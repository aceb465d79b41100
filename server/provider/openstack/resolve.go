package openstack

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/availabilityzones"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servergroups"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// The keys of what a choice commits besides its own fields.
const (
	extraSubnet6 = "subnet6"         // id of the IPv6 subnet
	extraPublic  = "public-network"  // id of the network of floating IPs
	extraGroup   = "server-group"    // id of the server group
	extraRootGib = "root-volume-gib" // size of a root volume
	onDemand     = "on-demand"       // the only price class
	defaultRoot  = uint32(10)        // GiB of a root volume whose size nobody has given
)

// Resolve finds image, flavors, zones and network, and checks them against each other and the project's quota.
func (p *Provider) Resolve(ctx context.Context, wish *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	if err := unsupported(wish); err != nil {
		return nil, err
	}
	s, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	offer := &provisionrv1.Offer{}
	if wish.Spot != nil {
		offer.Warnings = append(offer.Warnings, "openstack has no spot capacity: the machines are on-demand")
	}
	image, err := p.resolveImage(ctx, s, wish)
	if err != nil {
		return nil, err
	}
	types, err := p.resolveFlavors(ctx, s, wish, image)
	if err != nil {
		return nil, err
	}
	zones, err := p.resolveZones(ctx, s, wish.GetPlacement().GetZones())
	if err != nil {
		return nil, err
	}
	base, err := p.resolvePlacement(ctx, s, wish)
	if err != nil {
		return nil, err
	}
	base.Image, base.ImageName, base.PriceClass = image.ID, image.Name, onDemand
	base.Architecture = cmp.Or(wish.GetHardware().GetArchitecture(), "amd64")
	types, warnings, err := p.withinQuota(ctx, s, wish, types)
	if err != nil {
		return nil, err
	}
	offer.Warnings = append(offer.Warnings, warnings...)
	for _, flavor := range types {
		for _, zone := range zones {
			choice := proto.CloneOf(base)
			choice.Type, choice.TypeName, choice.Zone = flavor.ID, flavor.Name, zone
			choice.Cpus, choice.MemoryMib = uint32(flavor.VCPUs), uint32(flavor.RAM)
			if needsVolume(wish.GetHardware(), flavor) {
				choice.Extra[extraRootGib] = itoa(int(max(cmp.Or(wish.GetHardware().GetDiskGib(), defaultRoot), uint32(image.MinDiskGigabytes))))
			}
			if err := p.storable(s, wish.GetHardware(), choice); err != nil {
				return nil, err
			}
			offer.Choices = append(offer.Choices, choice)
		}
	}
	return offer, nil
}

// unsupported refuses what the compute API has no words for.
func unsupported(wish *provisionrv1.Wish) error {
	image, placement := wish.GetImage(), wish.GetPlacement()
	var what string
	switch {
	case wish.Spot != nil && !wish.GetSpot().GetFallback():
		what = "spot capacity: remove spot, or set spot.fallback"
	case image.GetParameter() != "" || image.GetFamily() != "" || image.GetUrl() != "":
		what = "image.parameter, image.family or image.url: give image.id or image.name"
	case placement.GetIdentity() != "":
		what = "placement.identity"
	case placement.GetPublicAddress() && placement.GetPublicNetwork() == "":
		what = "public addresses without placement.public_network, the external network that they come from"
	}
	for _, disk := range append([]*provisionrv1.Disk{wish.GetHardware().GetRootDisk()}, wish.GetHardware().GetDisks()...) {
		if disk.GetIops() != 0 || disk.GetThroughputMibps() != 0 || disk.GetEncrypted() {
			what = "iops, throughput_mibps or encrypted of a disk: name a volume type that has it"
		}
	}
	for _, disk := range wish.GetHardware().GetDisks() {
		if disk.GetSizeGib() == 0 {
			what = "a further disk without size_gib"
		}
	}
	if what == "" {
		return nil
	}
	return provider.Errorf(provider.Invalid, "openstack has no %s", what)
}

// storable checks that the cloud has what volumes need.
func (p *Provider) storable(s *session, h *provisionrv1.Hardware, choice *provisionrv1.Choice) error {
	if s.volume == nil && (rootVolume(h, choice) || len(h.GetDisks()) > 0) {
		return provider.Errorf(provider.Invalid, "openstack: the cloud's catalogue has no block storage (cinder): "+
			"hardware.disks, hardware.root_disk.type and keep, and flavor %s, need volumes", choice.GetTypeName())
	}
	return nil
}

// resolveZones returns the zones to use in order; an empty one leaves the choice to Nova.
func (p *Provider) resolveZones(ctx context.Context, s *session, want []string) ([]string, error) {
	if len(want) == 0 {
		return []string{""}, nil
	}
	there, err := p.zones.get(ctx, func(all []string) bool {
		return !slices.ContainsFunc(want, func(z string) bool { return !slices.Contains(all, z) })
	},
		func(ctx context.Context) ([]string, error) {
			page, err := availabilityzones.List(s.compute).AllPages(ctx)
			if err != nil {
				return nil, fail(err, "listing availability zones")
			}
			all, err := availabilityzones.ExtractAvailabilityZones(page)
			var names []string
			for _, zone := range all {
				if zone.ZoneState.Available {
					names = append(names, zone.ZoneName)
				}
			}
			return names, fail(err, "listing availability zones")
		})
	if err != nil {
		return nil, err
	}
	for _, zone := range want {
		if !slices.Contains(there, zone) {
			return nil, provider.Errorf(provider.Invalid, "openstack: there is no availability zone %q%s", zone, hint(zone, there))
		}
	}
	return want, nil
}

// resolvePlacement finds network, public network, groups and key, which all choices have in common.
func (p *Provider) resolvePlacement(ctx context.Context, s *session, wish *provisionrv1.Wish) (*provisionrv1.Choice, error) {
	net, err := p.network(ctx, s, wish.GetNetwork().GetSpec())
	if err != nil {
		return nil, err
	}
	base := &provisionrv1.Choice{Network: net.id, Subnet: net.primary().ID, Extra: map[string]string{}}
	placement := wish.GetPlacement()
	if placement.GetIpv6() {
		six := net.of(6)
		if six == nil {
			return nil, provider.Errorf(provider.Invalid, "openstack: network %s has no IPv6 subnet", net.name)
		}
		if six.ID != base.Subnet {
			base.Extra[extraSubnet6] = six.ID
		}
	}
	if placement.GetPublicAddress() {
		all, err := p.networks(ctx, s)
		if err != nil {
			return nil, err
		}
		outside := slices.DeleteFunc(all, func(n anyNetwork) bool { return !n.External })
		public, err := choose("external network", placement.GetPublicNetwork(), outside,
			func(n anyNetwork) (string, string) { return n.ID, n.Name }, func(anyNetwork) bool { return true })
		if err != nil {
			return nil, err
		}
		base.Extra[extraPublic] = public.ID
	}
	if name := placement.GetGroup(); name != "" {
		all, err := pages(ctx, servergroups.List(s.compute, servergroups.ListOpts{Limit: listPage}), servergroups.ExtractServerGroups)
		if err != nil {
			return nil, fail(err, "listing server groups")
		}
		group, err := choose("server group", name, all,
			func(g servergroups.ServerGroup) (string, string) { return g.ID, g.Name }, func(servergroups.ServerGroup) bool { return true })
		if err != nil {
			return nil, err
		}
		base.Extra[extraGroup] = group.ID
	}
	if err := p.checkKey(ctx, s, placement.GetKeyPair()); err != nil {
		return nil, err
	}
	groups, err := p.groups(ctx, s)
	if err != nil {
		return nil, err
	}
	if group, ok := groups[wish.GetPool()]; ok {
		base.Groups = []string{group.ID}
	}
	return base, nil
}

func (p *Provider) checkKey(ctx context.Context, s *session, name string) error {
	if name == "" {
		return nil
	}
	_, err := keypairs.Get(ctx, s.compute, name, nil).Extract()
	if code(err) != http.StatusNotFound {
		return fail(err, "looking at key pair "+name)
	}
	all, err := pages(ctx, keypairs.List(s.compute, nil), keypairs.ExtractKeyPairs)
	if err != nil {
		return fail(err, "listing key pairs")
	}
	var names []string
	for _, key := range all {
		names = append(names, key.Name)
	}
	return provider.Errorf(provider.Invalid, "openstack: there is no key pair %q%s", name, hint(name, names))
}

// resolveImage finds the image by id, by name with wildcards, or by its operating system.
func (p *Provider) resolveImage(ctx context.Context, s *session, wish *provisionrv1.Wish) (*images.Image, error) {
	var found *images.Image
	all, err := p.images.get(ctx, func(all []images.Image) bool { return pickImage(all, wish) != nil }, func(ctx context.Context) ([]images.Image, error) {
		all, err := pages(ctx, images.List(s.image, images.ListOpts{Status: images.ImageStatusActive, Limit: listPage}), images.ExtractImages)
		return all, fail(err, "listing images")
	})
	if err != nil {
		return nil, err
	}
	if found = pickImage(all, wish); found != nil {
		return found, nil
	}
	var names []string
	for _, image := range all {
		names = append(names, image.Name)
	}
	system := wish.GetOs().GetDistribution() + " " + wish.GetOs().GetRelease()
	switch want := wish.GetImage(); {
	case want.GetId() != "":
		return nil, provider.Errorf(provider.Invalid, "openstack: there is no image %q%s", want.GetId(), hint(want.GetId(), names))
	case want.GetName() != "" && want.GetOwner() != "":
		return nil, provider.Errorf(provider.Invalid, "openstack: project %s has no image %q%s", want.GetOwner(), want.GetName(), hint(want.GetName(), names))
	case want.GetName() != "":
		return nil, provider.Errorf(provider.Invalid, "openstack: there is no image %q%s", want.GetName(), hint(strings.ReplaceAll(want.GetName(), "*", ""), names))
	}
	return nil, provider.Errorf(provider.Invalid, "openstack: no image of %s is found by its name or its os_distro and os_version: name one with image.name%s",
		system, hint(system, names))
}

// resolveFlavors returns the flavors to use, in order.
func (p *Provider) resolveFlavors(ctx context.Context, s *session, wish *provisionrv1.Wish, image *images.Image) ([]flavors.Flavor, error) {
	h := wish.GetHardware()
	all, err := p.flavors.get(ctx, func(all []flavors.Flavor) bool { _, err := pickFlavors(all, h, image); return err == nil },
		func(ctx context.Context) ([]flavors.Flavor, error) {
			all, err := pages(ctx, flavors.ListDetail(s.compute, flavors.ListOpts{Limit: listPage, AccessType: flavors.AllAccess}), flavors.ExtractFlavors)
			return all, fail(err, "listing flavors")
		})
	if err != nil {
		return nil, err
	}
	return pickFlavors(all, h, image)
}
