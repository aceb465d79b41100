package aws

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// timeServer is the Amazon Time Sync Service, which every instance reaches ("Set the time reference on your EC2 instance",
// EC2 User Guide).
const timeServer = "169.254.169.123"

// network is a VPC and the subnets of it that machines may be in.
type network struct {
	id      string
	cidrs   []netip.Prefix // the primary one first
	ipv6    bool
	subnets []subnet
}

type subnet struct {
	id, zone  string
	free      int  // addresses that are not in use
	ipv6      bool // it has an IPv6 range
	isDefault bool // it is the zone's default subnet
	public    bool // it gives public addresses where a launch does not say otherwise
}

// EnsureNetwork implements provider.Provider. It makes nothing: the VPC and the subnets must exist.
func (p *Provider) EnsureNetwork(ctx context.Context, n *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	found, err := p.findNetwork(ctx, n)
	if err != nil {
		return nil, err
	}
	spec := proto.CloneOf(n.GetSpec())
	if spec == nil {
		spec = &provisionrv1.NetworkSpec{}
	}
	if spec.GetCidr() == "" {
		spec.Cidr = found.cidrs[0].String()
	} else if err := within(spec.GetCidr(), found); err != nil {
		return nil, err
	}
	if len(spec.GetNtpServers()) == 0 {
		spec.NtpServers = []string{timeServer}
	}
	return spec, nil
}

// within checks that the range that a person gave is one of the VPC's.
func within(cidr string, n network) error {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return provider.Errorf(provider.Invalid, "cannot use network: %w", err)
	}
	var all []string
	for _, c := range n.cidrs {
		if c.Bits() <= prefix.Bits() && c.Contains(prefix.Addr()) {
			return nil
		}
		all = append(all, c.String())
	}
	return provider.Errorf(provider.Invalid, "network %s has the range %s, not %s", n.id, strings.Join(all, ", "), cidr)
}

// findNetwork finds the VPC and the subnets that a network object names, or the account's default ones.
func (p *Provider) findNetwork(ctx context.Context, n *provisionrv1.Network) (network, error) {
	spec := n.GetSpec()
	key := "network " + spec.GetId() + " " + strings.Join(spec.GetSubnets(), " ")
	return cached(ctx, &p.cache, key, soon, func(ctx context.Context) (network, error) {
		vpc, err := p.findVPC(ctx, spec.GetId())
		if err != nil {
			return network{}, err
		}
		found := network{id: awssdk.ToString(vpc.VpcId)}
		primary := awssdk.ToString(vpc.CidrBlock)
		for _, c := range append([]string{primary}, associated(vpc)...) {
			if prefix, err := netip.ParsePrefix(c); err == nil && !slices.Contains(found.cidrs, prefix) {
				found.cidrs = append(found.cidrs, prefix)
			}
		}
		if len(found.cidrs) == 0 {
			return network{}, provider.Errorf(provider.Unknown, "network %s has no range", found.id)
		}
		for _, a := range vpc.Ipv6CidrBlockAssociationSet {
			found.ipv6 = found.ipv6 || a.Ipv6CidrBlockState != nil && a.Ipv6CidrBlockState.State == types.VpcCidrBlockStateCodeAssociated
		}
		found.subnets, err = p.findSubnets(ctx, found.id, spec.GetSubnets())
		return found, err
	})
}

// associated returns the further IPv4 ranges of a VPC.
func associated(vpc types.Vpc) []string {
	var all []string
	for _, a := range vpc.CidrBlockAssociationSet {
		if a.CidrBlockState != nil && a.CidrBlockState.State == types.VpcCidrBlockStateCodeAssociated {
			all = append(all, awssdk.ToString(a.CidrBlock))
		}
	}
	return all
}

// findVPC finds a VPC by id or by its Name tag; "" is the default one.
func (p *Provider) findVPC(ctx context.Context, name string) (types.Vpc, error) {
	api, err := p.api(ctx)
	if err != nil {
		return types.Vpc{}, err
	}
	in := &ec2.DescribeVpcsInput{}
	switch {
	case name == "":
		in.Filters = []types.Filter{filter("is-default", "true")}
	case strings.HasPrefix(name, "vpc-"):
		in.Filters = []types.Filter{filter("vpc-id", escaped(name))}
	default:
		in.Filters = []types.Filter{filter("tag:"+tagName, escaped(name))}
	}
	out, err := api.ec2.DescribeVpcs(ctx, in)
	if err != nil {
		return types.Vpc{}, p.classify(ctx, "find the network", err)
	}
	var found []types.Vpc
	for _, v := range out.Vpcs {
		if name == "" && awssdk.ToBool(v.IsDefault) || name != "" && (awssdk.ToString(v.VpcId) == name || tag(v.Tags, tagName) == name) {
			found = append(found, v)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return types.Vpc{}, provider.Errorf(provider.Invalid, "there are %d networks named %q: give the id of one", len(found), name)
	case name == "":
		return types.Vpc{}, provider.Errorf(provider.Invalid, "the account has no default network in region %s: give the id of one", p.config.Spec.GetRegion())
	}
	all, err := api.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{MaxResults: awssdk.Int32(pageSize)}) // one page is enough for a hint
	if err != nil {
		return types.Vpc{}, p.classify(ctx, "list networks", err)
	}
	var names []string
	for _, v := range all.Vpcs {
		names = append(names, awssdk.ToString(v.VpcId))
		if n := tag(v.Tags, tagName); n != "" {
			names = append(names, n)
		}
	}
	return types.Vpc{}, unknownName("network", name, names)
}

// findSubnets returns the subnets of a VPC that the names choose, by id or Name tag, in that order; without names all, the
// default one of each zone first.
func (p *Provider) findSubnets(ctx context.Context, vpc string, names []string) ([]subnet, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	pages := ec2.NewDescribeSubnetsPaginator(api.ec2, &ec2.DescribeSubnetsInput{
		Filters: []types.Filter{filter("vpc-id", vpc), filter("state", string(types.SubnetStateAvailable))}, MaxResults: awssdk.Int32(pageSize),
	})
	var all []subnet
	byName, known := map[string][]subnet{}, []string{}
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, p.classify(ctx, "list subnets", err)
		}
		for _, s := range page.Subnets {
			if awssdk.ToString(s.VpcId) != vpc || s.State != "" && s.State != types.SubnetStateAvailable {
				continue
			}
			one := subnet{
				id: awssdk.ToString(s.SubnetId), zone: awssdk.ToString(s.AvailabilityZone), free: int(awssdk.ToInt32(s.AvailableIpAddressCount)),
				isDefault: awssdk.ToBool(s.DefaultForAz), public: awssdk.ToBool(s.MapPublicIpOnLaunch),
			}
			for _, a := range s.Ipv6CidrBlockAssociationSet {
				one.ipv6 = one.ipv6 || a.Ipv6CidrBlockState != nil && a.Ipv6CidrBlockState.State == types.SubnetCidrBlockStateCodeAssociated
			}
			all = append(all, one)
			for _, name := range []string{one.id, tag(s.Tags, tagName)} {
				if name != "" {
					byName[name] = append(byName[name], one)
					known = append(known, name)
				}
			}
		}
	}
	if len(names) == 0 {
		if len(all) == 0 {
			return nil, provider.Errorf(provider.Invalid, "network %s has no subnets", vpc)
		}
		slices.SortFunc(all, func(a, b subnet) int {
			return cmp.Or(cmp.Compare(a.zone, b.zone), -compare(a.isDefault, b.isDefault), -cmp.Compare(a.free, b.free), cmp.Compare(a.id, b.id))
		})
		// One for each zone: further ones of a zone do not have other capacity.
		return slices.CompactFunc(all, func(a, b subnet) bool { return a.zone == b.zone }), nil
	}
	var chosen []subnet
	for _, name := range names {
		if len(byName[name]) == 0 {
			return nil, unknownName("subnet", name, known)
		}
		slices.SortFunc(byName[name], func(a, b subnet) int { return cmp.Or(cmp.Compare(a.zone, b.zone), cmp.Compare(a.id, b.id)) })
		chosen = append(chosen, byName[name]...) // one Name tag may stand for one subnet in each zone
	}
	return chosen, nil
}

// compare orders false before true.
func compare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// unknownName is the Invalid error for a name that the account does not know, with those that a person may have meant.
func unknownName(what, name string, known []string) error {
	const most = 3
	if near := provider.Nearest(name, known, most); len(near) > 0 {
		return provider.Errorf(provider.Invalid, "there is no %s %q; nearest: %s", what, name, strings.Join(near, ", "))
	}
	return provider.Errorf(provider.Invalid, "there is no %s %q", what, name)
}
