package gce

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/api/compute/v1"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	// defaultNetwork is the network that a new project has
	// (https://cloud.google.com/vpc/docs/vpc#default-network).
	defaultNetwork = "default"
	// metadataServer answers NTP in every network
	// (https://cloud.google.com/compute/docs/instances/configure-ntp).
	metadataServer = "169.254.169.254"
)

// network is what a NetworkSpec means here: a network and its subnetworks of the region, in order.
type network struct {
	*compute.Network
	subnets []*compute.Subnetwork
}

// EnsureNetwork implements provider.Provider. It makes nothing.
func (p *Provider) EnsureNetwork(ctx context.Context, n *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	found, err := p.network(ctx, api, n.GetSpec())
	if err != nil {
		return nil, err
	}
	spec := proto.CloneOf(n.GetSpec())
	if spec == nil {
		spec = &provisionrv1.NetworkSpec{}
	}
	covering, err := found.covering()
	if err != nil {
		return nil, err
	}
	if spec.Cidr == "" {
		spec.Cidr = covering.String()
	} else if given, err := netip.ParsePrefix(spec.Cidr); err != nil || !given.Contains(covering.Addr()) || given.Bits() > covering.Bits() {
		return nil, provider.Errorf(provider.Invalid, "gce: network %s has range %s in %s, which is not within %s", found.Name, covering, p.region, spec.Cidr)
	}
	if len(spec.NtpServers) == 0 {
		spec.NtpServers = []string{metadataServer}
	}
	return spec, nil
}

// network looks up a network and its subnetworks in the region.
func (p *Provider) network(ctx context.Context, api *compute.Service, spec *provisionrv1.NetworkSpec) (*network, error) {
	project, name := p.project, spec.GetId()
	if name == "" {
		name = defaultNetwork
	}
	// A shared network is of another project: projects/PROJECT/global/networks/NAME.
	if parts := strings.Split(path(name), "/"); len(parts) == 5 && parts[0] == "projects" {
		project, name = parts[1], parts[4]
	}
	found, err := api.Networks.Get(project, name).Context(ctx).Do()
	if absent(err, name) {
		names, listErr := collect(func(token string) ([]string, string, error) {
			page, err := api.Networks.List(project).PageToken(token).Context(ctx).Do()
			if err != nil {
				return nil, "", err
			}
			return namesOf(page.Items, func(n *compute.Network) string { return n.Name }), page.NextPageToken, nil
		})
		return nil, p.unlike("network", name, "project "+project, names, listErr)
	}
	if err != nil {
		return nil, p.failed("look for network "+name, err)
	}
	all, err := collect(func(token string) ([]*compute.Subnetwork, string, error) {
		page, err := api.Subnetworks.List(project, p.region).MaxResults(listPage).PageToken(token).Context(ctx).Do()
		if err != nil {
			return nil, "", err
		}
		return page.Items, page.NextPageToken, nil
	})
	if err != nil {
		return nil, p.failed("list the subnetworks of "+p.region, err)
	}
	all = slices.DeleteFunc(all, func(s *compute.Subnetwork) bool {
		return path(s.Network) != path(found.SelfLink) || s.Purpose != "" && s.Purpose != "PRIVATE"
	})
	n := &network{found, all}
	if len(spec.GetSubnets()) > 0 {
		n.subnets = nil
		for _, wanted := range spec.GetSubnets() {
			i := slices.IndexFunc(all, func(s *compute.Subnetwork) bool { return s.Name == base(wanted) })
			if i < 0 {
				return nil, p.unlike("subnetwork", wanted, "network "+name+" in "+p.region, namesOf(all, func(s *compute.Subnetwork) string { return s.Name }), nil)
			}
			n.subnets = append(n.subnets, all[i])
		}
	}
	if len(n.subnets) == 0 && found.IPv4Range == "" {
		return nil, provider.Errorf(provider.Invalid, "gce: network %s has no subnetwork in %s", name, p.region)
	}
	return n, nil
}

// covering is the least range that has all subnetworks, or that of a network of the old kind without any.
func (n *network) covering() (netip.Prefix, error) {
	var all netip.Prefix
	ranges := []string{n.IPv4Range}
	if len(n.subnets) > 0 {
		ranges = namesOf(n.subnets, func(s *compute.Subnetwork) string { return s.IpCidrRange })
	}
	for _, text := range ranges {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return netip.Prefix{}, provider.Errorf(provider.Unknown, "gce: network %s has range %q: %w", n.Name, text, err)
		}
		if !all.IsValid() {
			all = r.Masked()
		}
		for !all.Contains(r.Addr()) || all.Bits() > r.Bits() {
			all = netip.PrefixFrom(all.Addr(), all.Bits()-1).Masked()
		}
	}
	return all, nil
}

// unlike says that there is no such thing and which ones are named alike.
func (p *Provider) unlike(what, name, where string, names []string, err error) error {
	if err != nil {
		return p.failed("list what is like "+what+" "+name, err)
	}
	nearest := provider.Nearest(base(name), names, 3)
	if len(nearest) == 0 {
		return provider.Errorf(provider.Invalid, "gce: there is no %s %s in %s", what, name, where)
	}
	return provider.Errorf(provider.Invalid, "gce: there is no %s %s in %s; nearest: %s", what, name, where, strings.Join(nearest, ", "))
}

// maxPages bounds what is listed whole: 100,000 machine types or images.
const maxPages = 200

// collect reads all pages of a list.
func collect[T any](page func(token string) ([]T, string, error)) ([]T, error) {
	var all []T
	token := ""
	for range maxPages {
		items, next, err := page(token)
		if err != nil {
			return nil, err
		}
		if all = append(all, items...); next == "" {
			return all, nil
		}
		token = next
	}
	return nil, provider.Errorf(provider.Unknown, "gce: a list has more than %d pages", maxPages)
}

func namesOf[T any](all []T, name func(T) string) []string {
	names := make([]string, len(all))
	for i, x := range all {
		names[i] = name(x)
	}
	return names
}
