package openstack

import (
	"cmp"
	"context"
	"slices"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"
	"github.com/gophercloud/gophercloud/v2/pagination"
)

// pages collects all pages of a list. Nothing is returned with an error: what is incomplete is of no use.
func pages[T any](ctx context.Context, pager pagination.Pager, extract func(pagination.Page) ([]T, error)) ([]T, error) {
	var all []T
	err := pager.EachPage(ctx, func(_ context.Context, page pagination.Page) (bool, error) {
		some, err := extract(page)
		all = append(all, some...)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// servers lists the cluster's servers, or those of one machine. The cloud filters by tag where it can; what decides is the
// metadata, as an API that does not know the filter ignores it.
func (p *Provider) servers(ctx context.Context, s *session, machineID string) ([]servers.Server, error) {
	opts := servers.ListOpts{Limit: listPage}
	if s.tags {
		opts.Tags = tag(keyCluster, p.cluster)
		if machineID != "" {
			opts.Tags += "," + tag(keyMachine, machineID)
		}
	}
	all, err := pages(ctx, servers.List(s.compute, opts), servers.ExtractServers)
	if err != nil {
		return nil, fail(err, "listing servers")
	}
	return slices.DeleteFunc(all, func(server servers.Server) bool { return !p.owns(&server, machineID) }), nil
}

// ports lists the cluster's ports, or those of one machine.
func (p *Provider) ports(ctx context.Context, s *session, machineID string) ([]ports.Port, error) {
	opts := ports.ListOpts{Description: p.ours(), Limit: listPage}
	if machineID != "" {
		opts.Name = portPrefix + machineID
	}
	all, err := pages(ctx, ports.List(s.network, opts), ports.ExtractPorts)
	if err != nil {
		return nil, fail(err, "listing ports")
	}
	return slices.DeleteFunc(all, func(port ports.Port) bool {
		id, ok := p.claims(&port)
		return !ok || machineID != "" && id != machineID
	}), nil
}

// traces are the servers and ports of one machine, oldest first.
type traces struct {
	servers []servers.Server
	ports   []ports.Port
}

// find looks for all there is of a machine: by tag, by the port's name, and by what is plugged into the port.
func (p *Provider) find(ctx context.Context, s *session, machineID string) (traces, error) {
	var t traces
	var err error
	// The port first: it is made before its server, so a server that is made meanwhile is found by it or by its tag.
	if t.ports, err = p.ports(ctx, s, machineID); err != nil {
		return t, err
	}
	if t.servers, err = p.servers(ctx, s, machineID); err != nil {
		return t, err
	}
	for _, port := range t.ports {
		if slices.ContainsFunc(t.servers, func(server servers.Server) bool { return server.ID == port.DeviceID }) {
			continue
		}
		server, err := p.plugged(ctx, s, &port)
		if err != nil {
			return t, err
		}
		if server != nil && p.owns(server, machineID) {
			t.servers = append(t.servers, *server)
		}
	}
	slices.SortFunc(t.servers, func(a, b servers.Server) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(t.ports, func(a, b ports.Port) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return t, nil
}

// plugged returns the server that the port belongs to, or nil. Lists leave out servers of a cell that does not answer;
// asked for by its id, such a server is an error, not absent.
func (p *Provider) plugged(ctx context.Context, s *session, port *ports.Port) (*servers.Server, error) {
	if port.DeviceID == "" {
		return nil, nil
	}
	server, err := servers.Get(ctx, s.compute, port.DeviceID).Extract()
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, fail(err, "looking at the server of port "+port.ID)
	}
	return server, nil
}

// main is the server that the machine's port belongs to, else the oldest. It is nil when there is none.
func (t traces) main() (*servers.Server, *ports.Port) {
	for n := range t.ports {
		for m := range t.servers {
			if t.servers[m].ID == t.ports[n].DeviceID {
				return &t.servers[m], &t.ports[n]
			}
		}
	}
	var server *servers.Server
	var port *ports.Port
	if len(t.servers) > 0 {
		server = &t.servers[0]
	}
	if len(t.ports) > 0 {
		port = &t.ports[0]
	}
	return server, port
}

// absentOr turns the absence of what is deleted into success.
func absentOr(err error, doing string) error {
	if missing(err) {
		return nil
	}
	return fail(err, doing)
}

// finished reports whether the cloud has answered that it did nothing: a refusal, or a server error of the service itself,
// whose work is over with the answer. A proxy's 502 or 504 says nothing of what goes on behind it.
func finished(err error) bool {
	response, ok := answer(err)
	return ok && response.Actual != 502 && response.Actual != 504
}
