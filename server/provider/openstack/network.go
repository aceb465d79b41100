package openstack

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// EnsureNetwork finds the network and its subnets and completes the specification by their ids, range, gateway and name
// servers. It makes nothing.
func (p *Provider) EnsureNetwork(ctx context.Context, network *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	s, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	found, err := p.network(ctx, s, network.GetSpec())
	if err != nil {
		return nil, err
	}
	return complete(network.GetSpec(), found)
}

// attached is a network with the subnets to use, in order.
type attached struct {
	id, name string
	subnets  []subnets.Subnet
}

// of returns the first subnet of an IP version.
func (a attached) of(version int) *subnets.Subnet {
	i := slices.IndexFunc(a.subnets, func(s subnets.Subnet) bool { return s.IPVersion == version })
	if i < 0 {
		return nil
	}
	return &a.subnets[i]
}

// primary is the subnet that the machines' addresses are in.
func (a attached) primary() *subnets.Subnet {
	if four := a.of(4); four != nil {
		return four
	}
	return a.of(6)
}

type anyNetwork struct {
	networks.Network
	external.NetworkExternalExt
}

func (p *Provider) networks(ctx context.Context, s *session) ([]anyNetwork, error) {
	page, err := networks.List(s.network, networks.ListOpts{}).AllPages(ctx)
	if err != nil {
		return nil, fail(err, "listing networks")
	}
	var all []anyNetwork
	return all, fail(networks.ExtractNetworksInto(page, &all), "listing networks")
}

// network finds what the specification names.
func (p *Provider) network(ctx context.Context, s *session, spec *provisionrv1.NetworkSpec) (attached, error) {
	all, err := p.networks(ctx, s)
	if err != nil {
		return attached{}, err
	}
	chosen, err := choose("network", spec.GetId(), all,
		func(n anyNetwork) (string, string) { return n.ID, n.Name }, func(n anyNetwork) bool { return !n.External })
	if err != nil {
		return attached{}, err
	}
	there, err := pages(ctx, subnets.List(s.network, subnets.ListOpts{NetworkID: chosen.ID}), subnets.ExtractSubnets)
	if err != nil {
		return attached{}, fail(err, "listing subnets")
	}
	slices.SortFunc(there, func(a, b subnets.Subnet) int {
		return cmp.Or(cmp.Compare(a.IPVersion, b.IPVersion), a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	found := attached{id: chosen.ID, name: chosen.Name, subnets: there}
	if len(spec.GetSubnets()) > 0 {
		found.subnets = nil
		for _, want := range spec.GetSubnets() {
			one, err := choose("subnet of network "+chosen.Name, want, there,
				func(s subnets.Subnet) (string, string) { return s.ID, s.Name }, func(subnets.Subnet) bool { return true })
			if err != nil {
				return attached{}, err
			}
			found.subnets = append(found.subnets, one)
		}
	}
	if len(found.subnets) == 0 {
		return attached{}, provider.Errorf(provider.Invalid, "openstack: network %s has no subnet", chosen.Name)
	}
	return found, nil
}

// choose finds the thing with the id, else the only one with the name, else, for an empty name, the only candidate.
func choose[T any](what, want string, all []T, names func(T) (id, name string), candidate func(T) bool) (T, error) {
	var none T
	var found []T
	var others []string
	for _, one := range all {
		id, name := names(one)
		switch {
		case want != "" && id == want:
			return one, nil
		case want != "" && name == want, want == "" && candidate(one):
			found = append(found, one)
		}
		if candidate(one) {
			others = append(others, cmp.Or(name, id))
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1 && want != "":
		return none, provider.Errorf(provider.Invalid, "openstack: %d have the name of %s %q: give its id", len(found), what, want)
	case len(found) > 1:
		return none, provider.Errorf(provider.Invalid, "openstack: the project has more than one %s: name one of %s", what, strings.Join(others, ", "))
	}
	return none, provider.Errorf(provider.Invalid, "openstack: there is no %s %q%s", what, want, hint(want, others))
}

// complete fills in what the specification leaves open, and checks the rest against the subnet.
func complete(given *provisionrv1.NetworkSpec, found attached) (*provisionrv1.NetworkSpec, error) {
	spec := proto.CloneOf(given)
	subnet := found.primary()
	whole, err := netip.ParsePrefix(subnet.CIDR)
	if err != nil {
		return nil, provider.Errorf(provider.Unknown, "openstack: subnet %s has the range %q", subnet.ID, subnet.CIDR)
	}
	if spec.GetCidr() == "" {
		spec.Cidr = whole.String()
	}
	own, err := netip.ParsePrefix(spec.GetCidr())
	if err != nil || !whole.Contains(own.Addr()) || own.Bits() < whole.Bits() {
		return nil, provider.Errorf(provider.Invalid, "openstack: the network's cidr %s is not within that of subnet %s, %s",
			spec.GetCidr(), cmp.Or(subnet.Name, subnet.ID), whole)
	}
	spec.Id, spec.Subnets = found.id, nil
	for _, s := range found.subnets {
		spec.Subnets = append(spec.Subnets, s.ID)
	}
	if spec.GetGateway() == "" {
		spec.Gateway = subnet.GatewayIP
	}
	if len(spec.GetDnsServers()) == 0 {
		spec.DnsServers = subnet.DNSNameservers
	}
	return spec, nil
}
