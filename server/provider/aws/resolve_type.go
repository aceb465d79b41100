package aws

import (
	"cmp"
	"context"
	"slices"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	// typePage is the most that DescribeInstanceTypes returns in one page.
	typePage = 100
	// typesChosen is how many types are offered where the wish names none.
	typesChosen = 3
	// leastMemoryMiB is what a machine without a wish for memory has at least.
	leastMemoryMiB = 1024
)

// machineType is an instance type, as far as a choice depends on it.
type machineType struct {
	name          string
	cpus, memory  uint32 // memory in MiB
	architectures []types.ArchitectureType
	current       bool
	spot, demand  bool
	ebs, hvm      bool
	special       bool // bare metal or with accelerators: dear; or of the old hypervisor
	burstable     bool
	ipv6          bool
}

// findTypes returns the types for a wish, in order of preference. Each is offered in the region.
func (p *Provider) findTypes(ctx context.Context, h *provisionrv1.Hardware, goarch string, spot bool) ([]machineType, error) {
	all, err := p.types(ctx)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 && len(h.GetTypes()) > 0 {
		return unchecked(h), nil
	}
	if len(h.GetTypes()) == 0 {
		chosen := leastTypes(all, h, goarch, spot)
		if len(chosen) == 0 {
			return nil, provider.Errorf(provider.Invalid, "region %s has no instance type for %s with %d cpus and %d MiB of memory",
				p.config.Spec.GetRegion(), goarch, h.GetCpus(), h.GetMemoryMib())
		}
		return chosen, nil
	}
	var chosen []machineType
	for _, name := range h.GetTypes() {
		at := slices.IndexFunc(all, func(t machineType) bool { return t.name == name })
		if at < 0 {
			var known []string
			for _, t := range all {
				known = append(known, t.name)
			}
			return nil, unknownName("instance type", name, known)
		}
		if err := suits(all[at], h, goarch); err != nil {
			return nil, err
		}
		chosen = append(chosen, all[at])
	}
	return chosen, nil
}

// unchecked are the types that a wish names where the server does not tell of any.
func unchecked(h *provisionrv1.Hardware) []machineType {
	var all []machineType
	for _, name := range h.GetTypes() {
		t := typeOf(types.InstanceTypeInfo{InstanceType: types.InstanceType(name)})
		t.cpus, t.memory = h.GetCpus(), h.GetMemoryMib()
		all = append(all, t)
	}
	return all
}

// suits checks a type that the wish names against the rest of the wish.
func suits(t machineType, h *provisionrv1.Hardware, goarch string) error {
	switch {
	case !has(t.architectures, types.ArchitectureType(ec2Architecture(goarch))):
		return provider.Errorf(provider.Invalid, "instance type %s is not for %s", t.name, goarch)
	case t.cpus < h.GetCpus() || t.memory < h.GetMemoryMib():
		return provider.Errorf(provider.Invalid, "instance type %s has %d cpus and %d MiB of memory, fewer than %d and %d",
			t.name, t.cpus, t.memory, h.GetCpus(), h.GetMemoryMib())
	case !t.ebs || !t.hvm:
		return provider.Errorf(provider.Invalid, "instance type %s cannot boot hvm images from ebs", t.name)
	}
	return nil
}

// leastTypes returns the types of the current generation that look cheapest and have what is wanted. EC2's API does not
// tell prices: fewer processors, then less memory stand for them, and burstable types are cheaper than others.
func leastTypes(all []machineType, h *provisionrv1.Hardware, goarch string, spot bool) []machineType {
	memory := cmp.Or(h.GetMemoryMib(), leastMemoryMiB)
	var fit []machineType
	for _, t := range all {
		if t.current && !t.special && (spot && t.spot || !spot && t.demand) && t.cpus >= h.GetCpus() && t.memory >= memory && suits(t, h, goarch) == nil {
			fit = append(fit, t)
		}
	}
	slices.SortFunc(fit, func(a, b machineType) int {
		return cmp.Or(cmp.Compare(a.cpus, b.cpus), cmp.Compare(a.memory, b.memory), -compare(a.burstable, b.burstable), cmp.Compare(a.name, b.name))
	})
	return fit[:min(typesChosen, len(fit))]
}

// types returns all types of the region, by name.
func (p *Provider) types(ctx context.Context) ([]machineType, error) {
	return cached(ctx, &p.cache, "types", slowly, func(ctx context.Context) ([]machineType, error) {
		api, err := p.api(ctx)
		if err != nil {
			return nil, err
		}
		var all []machineType
		pages := ec2.NewDescribeInstanceTypesPaginator(api.ec2, &ec2.DescribeInstanceTypesInput{MaxResults: awssdk.Int32(typePage)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if p.lacks(ctx, err, "instance types are taken as the pool names them") {
				return nil, nil
			}
			if err != nil {
				return nil, p.classify(ctx, "list instance types", err)
			}
			for _, t := range page.InstanceTypes {
				all = append(all, typeOf(t))
			}
		}
		slices.SortFunc(all, func(a, b machineType) int { return cmp.Compare(a.name, b.name) })
		return all, nil
	})
}

// typeOf reads a type. EC2 says all of it; what another server leaves unsaid is no reason against a type.
func typeOf(t types.InstanceTypeInfo) machineType {
	m := machineType{
		name: string(t.InstanceType), current: t.CurrentGeneration == nil || *t.CurrentGeneration, burstable: awssdk.ToBool(t.BurstablePerformanceSupported),
		spot:    has(t.SupportedUsageClasses, types.UsageClassTypeSpot),
		demand:  has(t.SupportedUsageClasses, types.UsageClassTypeOnDemand),
		ebs:     has(t.SupportedRootDeviceTypes, types.RootDeviceTypeEbs),
		hvm:     has(t.SupportedVirtualizationTypes, types.VirtualizationTypeHvm),
		special: awssdk.ToBool(t.BareMetal) || t.GpuInfo != nil || t.FpgaInfo != nil || t.InferenceAcceleratorInfo != nil || t.MediaAcceleratorInfo != nil || t.NeuronInfo != nil,
		ipv6:    t.NetworkInfo == nil || awssdk.ToBool(t.NetworkInfo.Ipv6Supported),
	}
	// Apple's hardware is let by the day on dedicated hosts only.
	m.special = m.special || strings.HasPrefix(m.name, "mac") || t.Hypervisor == types.InstanceTypeHypervisorXen
	if t.VCpuInfo != nil {
		m.cpus = uint32(max(0, awssdk.ToInt32(t.VCpuInfo.DefaultVCpus)))
	}
	if t.MemoryInfo != nil {
		m.memory = uint32(max(0, awssdk.ToInt64(t.MemoryInfo.SizeInMiB)))
	}
	if t.ProcessorInfo != nil {
		m.architectures = t.ProcessorInfo.SupportedArchitectures
	}
	return m
}

// has reports whether a list names the value, or nothing at all.
func has[T comparable](all []T, value T) bool { return len(all) == 0 || slices.Contains(all, value) }

// offerings returns the zones of the region and the types that each of them has, nothing where the server does not tell.
func (p *Provider) offerings(ctx context.Context) (map[string]map[string]bool, error) {
	return cached(ctx, &p.cache, "offerings", slowly, func(ctx context.Context) (map[string]map[string]bool, error) {
		api, err := p.api(ctx)
		if err != nil {
			return nil, err
		}
		zones := map[string]map[string]bool{}
		pages := ec2.NewDescribeInstanceTypeOfferingsPaginator(api.ec2, &ec2.DescribeInstanceTypeOfferingsInput{
			LocationType: types.LocationTypeAvailabilityZone, MaxResults: awssdk.Int32(pageSize),
		})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if p.lacks(ctx, err, "every type counts as offered in every zone") {
				return nil, nil
			}
			if err != nil {
				return nil, p.classify(ctx, "list what the zones offer", err)
			}
			for _, o := range page.InstanceTypeOfferings {
				zone := awssdk.ToString(o.Location)
				if o.LocationType != types.LocationTypeAvailabilityZone {
					continue
				}
				if zones[zone] == nil {
					zones[zone] = map[string]bool{}
				}
				zones[zone][string(o.InstanceType)] = true
			}
		}
		return zones, nil
	})
}
