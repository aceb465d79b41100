package openstack

import (
	"context"
	"errors"
	"slices"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// floating lists the cluster's floating IPs, or those of one machine. A cloud without routers has none.
func (p *Provider) floating(ctx context.Context, s *session, machineID string) ([]floatingips.FloatingIP, error) {
	opts := floatingips.ListOpts{Limit: listPage}
	if machineID != "" {
		opts.Description = p.oursFor(machineID)
	}
	all, err := pages(ctx, floatingips.List(s.network, opts), floatingips.ExtractFloatingIPs)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fail(err, "listing floating IPs")
	}
	return slices.DeleteFunc(all, func(ip floatingips.FloatingIP) bool {
		id, ok := p.machineOf(ip.Description)
		return !ok || machineID != "" && id != machineID
	}), nil
}

// expose gives the machine's port a floating IP where the machine is to have one.
func (p *Provider) expose(ctx context.Context, s *session, r *provisionrv1.LaunchRequest, port *ports.Port) error {
	network := r.GetChoice().GetExtra()[extraPublic]
	if network == "" || port == nil {
		return nil
	}
	there, err := p.floating(ctx, s, r.GetMachineId())
	if err != nil || len(there) > 0 {
		return err
	}
	_, err = floatingips.Create(ctx, s.network, floatingips.CreateOpts{
		Description: p.oursFor(r.GetMachineId()), FloatingNetworkID: network, PortID: port.ID, FixedIP: r.GetAddress(),
	}).Extract()
	return fail(err, "creating a floating IP")
}

func (p *Provider) releaseAddresses(ctx context.Context, s *session, machineID string) error {
	there, err := p.floating(ctx, s, machineID)
	if err != nil {
		return err
	}
	for _, ip := range there {
		err = errors.Join(err, absentOr(floatingips.Delete(ctx, s.network, ip.ID).ExtractErr(), "deleting floating IP "+ip.FloatingIP))
	}
	return err
}
