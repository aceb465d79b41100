package openstack

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"github.com/provisionr/provisionr/server/provider"
)

// goneTime is how long to watch a server that never ran until it is gone; there is nothing to shut down.
const goneTime = 10 * time.Second

// Terminate deletes the machine's servers, then its floating IPs and ports, then its volumes. The servers are listed until
// Nova has done so; without its port a machine is off the network from now on.
func (p *Provider) Terminate(ctx context.Context, machineID, _ string) error {
	if machineID == "" {
		return provider.Errorf(provider.Invalid, "openstack: no machine is named")
	}
	s, unlock, err := p.alone(ctx, machineID)
	if err != nil {
		return err
	}
	defer unlock()
	return p.remove(ctx, s, machineID, false)
}

// alone opens the cloud for a change of a machine, once no launch of it is under way.
func (p *Provider) alone(ctx context.Context, machineID string) (s *session, unlock func(), err error) {
	if unlock, err = p.launches.lock(ctx, machineID); err != nil {
		return nil, nil, fail(err, "waiting for a launch of the machine")
	}
	if s, err = p.open(ctx); err != nil {
		unlock()
		return nil, nil, err
	}
	return s, unlock, nil
}

// remove deletes all there is of a machine, and waits for it where asked to. It goes on after an error as far as the order
// allows: nothing that could be named only by what is gone already is left for later.
func (p *Provider) remove(ctx context.Context, s *session, machineID string, wait bool) error {
	there, err := p.find(ctx, s, machineID)
	if err != nil {
		return err
	}
	for n := range there.servers {
		err = errors.Join(err, p.removeServer(ctx, s, machineID, &there.servers[n]))
	}
	if err != nil {
		return join(err)
	}
	if wait {
		if err := p.gone(ctx, s, there.servers); err != nil {
			return err
		}
	}
	for n := range there.ports {
		err = errors.Join(err, p.removePort(ctx, s, machineID, &there.ports[n]))
	}
	if err != nil {
		return join(err)
	}
	// Also those of a port that somebody else has deleted.
	if err := p.releaseAddresses(ctx, s, machineID); err != nil {
		return err
	}
	return p.removeVolumes(ctx, s, machineID)
}

// join makes one error of several: the first one's kind, all of their words.
func join(err error) error {
	var e *provider.Error
	if !errors.As(err, &e) {
		return err
	}
	return &provider.Error{Kind: e.Kind, After: e.After, Message: err.Error(), Err: err}
}

func (p *Provider) removeServer(ctx context.Context, s *session, machineID string, server *servers.Server) error {
	if server.TaskState == "deleting" {
		return nil
	}
	if err := p.signVolumes(ctx, s, machineID, server); err != nil {
		return err
	}
	err := servers.Delete(ctx, s.compute, server.ID).ExtractErr()
	if code(err) == http.StatusConflict { // it is being deleted or changed; the next call sees
		return provider.Errorf(provider.Unknown, "openstack: server %s is busy: %w", server.ID, fail(err, "deleting it"))
	}
	return absentOr(err, "deleting server "+server.ID)
}

// removePort deletes a port with its floating IPs, in this order: a port can be found by the machine, and they by the port.
func (p *Provider) removePort(ctx context.Context, s *session, machineID string, port *ports.Port) error {
	if err := p.releaseAddresses(ctx, s, machineID); err != nil {
		return err
	}
	return absentOr(ports.Delete(ctx, s.network, port.ID).ExtractErr(), "deleting port "+port.ID)
}

// gone waits until the servers do not exist any more.
func (p *Provider) gone(ctx context.Context, s *session, all []servers.Server) error {
	deadline := time.Now().Add(goneTime)
	for _, server := range all {
		for wait := placePoll; ; wait = min(2*wait, placePollMost) {
			_, err := servers.Get(ctx, s.compute, server.ID).Extract()
			if missing(err) {
				break
			}
			if err != nil {
				return fail(err, "waiting for the end of server "+server.ID)
			}
			if time.Now().After(deadline) {
				return provider.Errorf(provider.Unknown, "openstack: server %s is still being deleted", server.ID)
			}
			select {
			case <-ctx.Done():
				return fail(ctx.Err(), "waiting for the end of server "+server.ID)
			case <-time.After(wait):
			}
		}
	}
	return nil
}

// Prune deletes the machine's other servers, and the claims that lost.
func (p *Provider) Prune(ctx context.Context, machineID, keep string) error {
	s, unlock, err := p.alone(ctx, machineID)
	if err != nil {
		return err
	}
	defer unlock()
	there, err := p.find(ctx, s, machineID)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(there.servers, func(server servers.Server) bool { return server.ID == keep }) {
		return provider.Errorf(provider.NotFound, "openstack: machine %s has no server %s to keep", machineID, keep)
	}
	for n := range there.servers {
		if there.servers[n].ID != keep {
			err = errors.Join(err, p.removeServer(ctx, s, machineID, &there.servers[n]))
		}
	}
	for n := range there.ports {
		// A port that is in no server's use while others exist is a claim that lost.
		if len(there.ports) > 1 && there.ports[n].DeviceID == "" {
			err = errors.Join(err, absentOr(ports.Delete(ctx, s.network, there.ports[n].ID).ExtractErr(), "deleting port "+there.ports[n].ID))
		}
	}
	return join(err)
}
