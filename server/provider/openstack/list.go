package openstack

import (
	"context"
	"iter"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"github.com/provisionr/provisionr/server/provider"
)

// List yields the cluster's servers, and as stopped the machines of which only ports, floating IPs or volumes are left.
func (p *Provider) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		all, err := p.list(ctx)
		if err != nil {
			yield(provider.Instance{}, uncertain(err))
			return
		}
		for _, i := range all {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func (p *Provider) list(ctx context.Context) ([]provider.Instance, error) {
	s, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	// The ports first: a server that is made meanwhile is in the list of servers then.
	claims, err := p.ports(ctx, s, "")
	if err != nil {
		return nil, err
	}
	made, err := p.servers(ctx, s, "")
	if err != nil {
		return nil, err
	}
	byServer := make(map[string]*ports.Port, len(claims))
	for n := range claims {
		if id := claims[n].DeviceID; id != "" {
			byServer[id] = &claims[n]
		}
	}
	var all []provider.Instance
	known := make(map[string]bool, len(made)) // by machine
	listed := make(map[string]bool, len(made))
	add := func(server *servers.Server) {
		machine := server.Metadata[keyMachine]
		known[machine], listed[server.ID] = true, true
		all = append(all, instance(machine, server, byServer[server.ID]))
	}
	for n := range made {
		add(&made[n])
	}
	leftover := func(machine, id string, port *ports.Port) {
		if !known[machine] {
			known[machine] = true
			all = append(all, instance(machine, &servers.Server{ID: id, Status: "SHUTOFF"}, port))
		}
	}
	for n := range claims {
		port := &claims[n]
		if port.DeviceID != "" && !listed[port.DeviceID] {
			server, err := p.plugged(ctx, s, port)
			if err != nil {
				return nil, err
			}
			if server != nil && p.owns(server, "") {
				add(server)
			}
		}
	}
	for n := range claims {
		machine, _ := p.claims(&claims[n])
		leftover(machine, "port/"+claims[n].ID, &claims[n])
	}
	floating, err := p.floating(ctx, s, "")
	if err != nil {
		return nil, err
	}
	for _, ip := range floating {
		machine, _ := p.machineOf(ip.Description)
		leftover(machine, "floatingip/"+ip.ID, nil)
	}
	disks, err := p.volumes(ctx, s, "")
	if err != nil {
		return nil, err
	}
	for _, volume := range disks {
		leftover(volume.Metadata[keyMachine], "volume/"+volume.ID, nil)
	}
	return all, nil
}
