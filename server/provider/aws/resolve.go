package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	// choiceLimit bounds an offer: who has 64 places without capacity does better to wait.
	choiceLimit = 64
	// extraRootGiB is the key in Choice.extra of the root disk's size: the image's is not known at launch any more.
	extraRootGiB = "root-gib"
	// The price classes of a choice.
	onDemand = "on-demand"
	atSpot   = "spot"
)

// place is a zone, and the subnet there that machines are in.
type place struct {
	zone, subnet string
}

// Resolve implements provider.Provider. EC2's API does not tell the quota of virtual processors: a launch finds out.
func (p *Provider) Resolve(ctx context.Context, wish *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	if err := p.checkRegion(ctx); err != nil {
		return nil, err
	}
	hardware, placement := wish.GetHardware(), wish.GetPlacement()
	goarch := cmp.Or(hardware.GetArchitecture(), "amd64")
	if err := checkDisks(hardware); err != nil {
		return nil, err
	}
	img, err := p.findImage(ctx, wish.GetOs(), wish.GetImage(), goarch)
	if provider.KindOf(err) == provider.NotFound { // the parameter that the wish names
		return nil, provider.Errorf(provider.Invalid, "%w", err)
	}
	if err != nil {
		return nil, err
	}
	if err := p.checkNames(ctx, placement); err != nil {
		return nil, err
	}
	machineTypes, err := p.findTypes(ctx, hardware, goarch, wish.GetSpot() != nil)
	if err != nil {
		return nil, err
	}
	network, err := p.findNetwork(ctx, wish.GetNetwork())
	if err != nil {
		return nil, err
	}
	places, warnings, err := p.places(ctx, network, placement, int(wish.GetCount()))
	if err != nil {
		return nil, err
	}
	offered, err := p.offerings(ctx)
	if err != nil {
		return nil, err
	}
	group, err := p.groupOf(ctx, network.id, wish.GetPool())
	if err != nil {
		return nil, err
	}
	base := &provisionrv1.Choice{
		Image: img.id, ImageName: img.name, RootDevice: img.rootDevice, Network: network.id, Architecture: goarch,
	}
	if group != "" {
		base.Groups = []string{group}
	}
	if size := max(hardware.GetDiskGib(), hardware.GetRootDisk().GetSizeGib()); size > 0 {
		base.Extra = map[string]string{extraRootGiB: strconv.FormatUint(uint64(max(size, img.rootGiB)), 10)}
	}
	choices := choicesOf(base, machineTypes, places, offered, wish)
	if len(choices) == 0 {
		return nil, p.offeredNowhere(machineTypes, places, offered)
	}
	return &provisionrv1.Offer{Choices: choices, Warnings: warnings}, nil
}

// choicesOf lists the ways to launch: types in order, for each the places in order; first as spot, if that is wanted, then,
// if it may fall back, on demand.
//
// Without any offerings, every type counts as offered everywhere.
func choicesOf(base *provisionrv1.Choice, all []machineType, places []place, offered map[string]map[string]bool, wish *provisionrv1.Wish) []*provisionrv1.Choice {
	var choices []*provisionrv1.Choice
	add := func(spot bool) {
		for _, t := range all {
			if spot && !t.spot || !spot && !t.demand || wish.GetPlacement().GetIpv6() && !t.ipv6 {
				continue
			}
			for _, at := range places {
				if len(offered) > 0 && !offered[at.zone][t.name] || len(choices) == choiceLimit {
					continue
				}
				c := &provisionrv1.Choice{
					Image: base.GetImage(), ImageName: base.GetImageName(), RootDevice: base.GetRootDevice(), Network: base.GetNetwork(),
					Architecture: base.GetArchitecture(), Groups: slices.Clone(base.GetGroups()), Extra: maps.Clone(base.GetExtra()),
					Type: t.name, TypeName: t.name, Zone: at.zone, Subnet: at.subnet, Cpus: t.cpus, MemoryMib: t.memory, PriceClass: onDemand,
				}
				if spot {
					c.Spot, c.MaxPrice, c.PriceClass = true, wish.GetSpot().GetMaxPrice(), atSpot
				}
				choices = append(choices, c)
			}
		}
	}
	if wish.GetSpot() != nil {
		add(true)
	}
	if wish.GetSpot() == nil || wish.GetSpot().GetFallback() {
		add(false)
	}
	return choices
}

// offeredNowhere says why there is no choice.
func (p *Provider) offeredNowhere(all []machineType, places []place, offered map[string]map[string]bool) error {
	var names, zones, has []string
	for _, t := range all {
		names = append(names, t.name)
		for zone, offers := range offered {
			if offers[t.name] && !slices.Contains(has, zone) {
				has = append(has, zone)
			}
		}
	}
	for _, at := range places {
		if !slices.Contains(zones, at.zone) {
			zones = append(zones, at.zone)
		}
	}
	slices.Sort(has)
	return provider.Errorf(provider.Invalid, "none of %s is offered as wanted in %s; zones that have one: %s",
		strings.Join(names, ", "), strings.Join(zones, ", "), cmp.Or(strings.Join(has, ", "), "none"))
}

// places returns the subnets that the placement allows, in order of preference.
func (p *Provider) places(ctx context.Context, n network, placement *provisionrv1.Placement, count int) ([]place, []string, error) {
	var known []string
	for _, s := range n.subnets {
		known = append(known, s.zone)
	}
	wanted := placement.GetZones()
	if len(wanted) == 0 {
		wanted = slices.Compact(slices.Clone(known))
	}
	var places []place
	free, private := 0, ""
	for i, zone := range wanted {
		if slices.Contains(wanted[:i], zone) {
			continue
		}
		if !slices.Contains(known, zone) {
			return nil, nil, p.unknownZone(ctx, n, zone, known)
		}
		for _, s := range n.subnets {
			if s.zone != zone || placement.GetIpv6() && !s.ipv6 {
				continue
			}
			places = append(places, place{zone, s.id})
			free += s.free
			if s.public && !placement.GetPublicAddress() {
				private = s.id
			}
		}
	}
	if len(places) == 0 {
		return nil, nil, provider.Errorf(provider.Invalid, "no subnet of network %s in %s has an ipv6 range", n.id, strings.Join(wanted, ", "))
	}
	var warnings []string
	if free < count {
		warnings = append(warnings, fmt.Sprintf("the subnets have %d free addresses, the pool has up to %d machines", free, count))
	}
	if private != "" {
		warnings = append(warnings, fmt.Sprintf("subnet %s reaches the internet by public addresses, which these machines do not get: set placement.publicAddress if they have no other way out", private))
	}
	return places, warnings, nil
}

// unknownZone tells a zone that the region does not have from one in which the network has no subnet.
func (p *Provider) unknownZone(ctx context.Context, n network, zone string, known []string) error {
	offered, err := p.offerings(ctx)
	if err != nil {
		return err
	}
	if _, exists := offered[zone]; exists {
		return provider.Errorf(provider.Invalid, "network %s has no subnet to use in zone %s, but in %s", n.id, zone, strings.Join(slices.Compact(known), ", "))
	}
	return unknownName("zone", zone, append(slices.Sorted(maps.Keys(offered)), known...))
}

// checkNames checks that what the placement names exists.
func (p *Provider) checkNames(ctx context.Context, placement *provisionrv1.Placement) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	if name := placement.GetKeyPair(); name != "" {
		_, err := cached(ctx, &p.cache, "key "+name, often, func(ctx context.Context) (bool, error) {
			out, err := api.ec2.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{})
			if p.lacks(ctx, err, "key pairs are not checked") {
				return true, nil
			}
			if err != nil {
				return false, p.classify(ctx, "list key pairs", err)
			}
			var known []string
			for _, k := range out.KeyPairs {
				known = append(known, awssdk.ToString(k.KeyName))
			}
			if !slices.Contains(known, name) {
				return false, unknownName("key pair", name, known)
			}
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	if name := placement.GetGroup(); name != "" {
		_, err := cached(ctx, &p.cache, "placement "+name, often, func(ctx context.Context) (bool, error) {
			out, err := api.ec2.DescribePlacementGroups(ctx, &ec2.DescribePlacementGroupsInput{})
			if p.lacks(ctx, err, "placement groups are not checked") {
				return true, nil
			}
			if err != nil {
				return false, p.classify(ctx, "list placement groups", err)
			}
			var known []string
			for _, g := range out.PlacementGroups {
				if g.State == types.PlacementGroupStateAvailable {
					known = append(known, awssdk.ToString(g.GroupName))
				}
			}
			if !slices.Contains(known, name) {
				return false, unknownName("placement group", name, known)
			}
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRegion checks that the region exists and that the account may use it.
func (p *Provider) checkRegion(ctx context.Context) error {
	region := p.config.Spec.GetRegion()
	_, err := cached(ctx, &p.cache, "region", slowly, func(ctx context.Context) (bool, error) {
		api, err := p.api(ctx)
		if err != nil {
			return false, err
		}
		out, err := api.ec2.DescribeRegions(ctx, &ec2.DescribeRegionsInput{AllRegions: awssdk.Bool(true)})
		if p.lacks(ctx, err, "the region is not checked") {
			return true, nil
		}
		var lookup *net.DNSError
		if errors.As(err, &lookup) && lookup.IsNotFound && p.config.Spec.GetEc2().GetUrl() == "" {
			// A region that does not exist has no endpoint to ask for those that do.
			return false, unknownName("aws region", region, knownRegions())
		}
		if err != nil {
			return false, p.classify(ctx, "list regions", err)
		}
		var known []string
		for _, r := range out.Regions {
			if awssdk.ToString(r.RegionName) == region {
				if awssdk.ToString(r.OptInStatus) == "not-opted-in" {
					return false, provider.Errorf(provider.Invalid, "the account has not opted in to region %s: enable it in the account's settings", region)
				}
				return true, nil
			}
			known = append(known, awssdk.ToString(r.RegionName))
		}
		return false, unknownName("aws region", region, known)
	})
	return err
}

// knownRegions are for hints only ("AWS Regions", AWS General Reference).
func knownRegions() []string {
	return strings.Fields(`af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2
		ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-7 ca-central-1 ca-west-1
		cn-north-1 cn-northwest-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3
		il-central-1 me-central-1 me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-gov-east-1 us-gov-west-1 us-west-1 us-west-2`)
}
