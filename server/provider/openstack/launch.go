package openstack

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/keypairs"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

const (
	// lingerTime is how much longer than its caller a launch may take that has begun to change something.
	lingerTime = 30 * time.Second
	// followTime is how long to wait for the server that another launch of the machine is about to create.
	followTime = 30 * time.Second
	// endedTime is how long after its end a machine's late launch is known as such.
	endedTime = 24 * time.Hour
	// placeTime is how long to watch whether Nova finds a host. A second or two is usual; what takes longer is seen later.
	placeTime = 8 * time.Second
	// placePoll is the first wait between two looks; each is twice the one before, up to placePollMost.
	placePoll     = 250 * time.Millisecond
	placePollMost = 2 * time.Second
)

// Launch claims the machine's port and creates its server.
func (p *Provider) Launch(ctx context.Context, request provider.LaunchRequest) (provider.Instance, error) {
	r := request.Request
	switch {
	case r.GetMachineId() == "":
		return provider.Instance{}, provider.Errorf(provider.Invalid, "openstack: the request names no machine")
	case len(request.UserData) > userDataLimit:
		return provider.Instance{}, provider.Errorf(provider.Invalid, "openstack: the user-data has %d bytes, more than %d", len(request.UserData), userDataLimit)
	case r.GetChoice().GetImage() == "" || r.GetChoice().GetType() == "" || r.GetChoice().GetNetwork() == "":
		return provider.Instance{}, provider.Errorf(provider.Invalid, "openstack: the request has no choice of image, flavor and network")
	}
	unlock, err := p.launches.lock(ctx, r.GetMachineId())
	if err != nil {
		return provider.Instance{}, fail(err, "waiting for another launch of the machine")
	}
	defer unlock()
	s, err := p.open(ctx)
	if err != nil {
		return provider.Instance{}, uncertain(err)
	}
	deadline := time.Now().Add(followTime)
	for wait := placePoll; ; wait = min(2*wait, placePollMost) {
		i, err := p.attempt(ctx, s, request)
		if !errors.Is(err, errBusy) || time.Now().After(deadline) {
			return i, err
		}
		select {
		case <-ctx.Done():
			return i, err
		case <-time.After(wait):
		}
	}
}

// attempt adopts the machine's server or creates it. The error is errBusy while another launch may create it.
func (p *Provider) attempt(ctx context.Context, s *session, request provider.LaunchRequest) (provider.Instance, error) {
	r := request.Request
	there, err := p.find(ctx, s, r.GetMachineId())
	if err != nil {
		return provider.Instance{}, uncertain(err)
	}
	server, port := there.main()
	if server == nil {
		if err := p.ended(ctx, s, r); err != nil {
			return provider.Instance{}, uncertain(err)
		}
	}
	if err := ctx.Err(); err != nil {
		return provider.Instance{}, fail(err, "launching")
	}
	whole, cancel := lingering(ctx, lingerTime)
	defer cancel()
	if server == nil {
		if server, port, err = p.create(whole, s, request, there.ports); err != nil {
			return provider.Instance{}, err
		}
	} else if err := p.expose(whole, s, r, port); err != nil {
		return provider.Instance{}, uncertain(err)
	}
	return p.settle(ctx, whole, s, r.GetMachineId(), server, port)
}

// ended refuses a launch whose server has existed and was deleted: Nova lists what was deleted lately among the changes
// (API reference, "List servers", changes-since). So a leader that was deposed cannot bring a machine back to life.
func (p *Provider) ended(ctx context.Context, s *session, r *provisionrv1.LaunchRequest) error {
	name := serverName(r)
	all, err := pages(ctx, servers.List(s.compute, servers.ListOpts{
		Name: "^" + name + "$", ChangesSince: time.Now().Add(-endedTime).UTC().Format("2006-01-02T15:04:05Z"), Limit: listPage,
	}), servers.ExtractServers)
	if err != nil {
		return fail(err, "listing deleted servers")
	}
	for _, server := range all {
		if server.Name == name && stateOf(&server) == provider.Gone {
			return provider.Errorf(provider.Unknown, "openstack: server %s of machine %s was terminated", server.ID, r.GetMachineId())
		}
	}
	return nil
}

// serverName is unique to the machine and, as a deleted server of an earlier attempt says nothing of a later one, to the
// attempt.
func serverName(r *provisionrv1.LaunchRequest) string {
	name := r.GetSlot() + "-" + r.GetMachineId()
	if r.GetAttempt() > 1 {
		name += "-" + itoa(int(r.GetAttempt()))
	}
	return strings.TrimPrefix(name, "-")
}

// uncertain hides a kind that would say that there is no instance, where nobody has looked yet or there is one.
func uncertain(err error) error {
	switch provider.KindOf(err) {
	case provider.NotFound, provider.NoCapacity, provider.QuotaExceeded, provider.Invalid:
		return provider.Errorf(provider.Unknown, "%w", err)
	}
	return err
}

// create makes port and server. What says that nothing was made is returned only when nothing is left.
func (p *Provider) create(ctx context.Context, s *session, request provider.LaunchRequest, found []ports.Port) (*servers.Server, *ports.Port, error) {
	r := request.Request
	port, err := p.claim(ctx, s, r, found)
	if err != nil {
		return nil, nil, err
	}
	// The address before the server: a refusal of it must leave nothing that runs.
	if err := p.expose(ctx, s, r, port); err != nil {
		return nil, nil, p.refuse(ctx, s, r.GetMachineId(), port, err)
	}
	if err := p.tagPort(ctx, s, r, port); err != nil {
		return nil, nil, p.refuse(ctx, s, r.GetMachineId(), port, err)
	}
	body, hints := p.serverBody(request, port.ID, s)
	server, err := servers.Create(ctx, s.compute, body, hints).Extract()
	if err != nil {
		return nil, nil, p.refuse(ctx, s, r.GetMachineId(), port, fail(err, "creating a server"))
	}
	if server.ID == "" {
		return nil, nil, provider.Errorf(provider.Unknown, "openstack: creating a server: the answer has no id")
	}
	// The answer to a creation holds little but the id.
	server.Status, server.Metadata = "BUILD", p.metadata(r)
	return server, port, nil
}

// refuse ends a launch that has its port but no server. After a refusal nothing is left; while it is uncertain whether there
// will be a server after all, the port stays.
func (p *Provider) refuse(ctx context.Context, s *session, machineID string, port *ports.Port, err error) error {
	err = definite(err)
	switch provider.KindOf(err) {
	case provider.QuotaExceeded, provider.NoCapacity, provider.Invalid, provider.Unauthorized, provider.RateLimited:
		if left := p.removePort(ctx, s, machineID, port); left != nil {
			return provider.Errorf(provider.Unknown, "%v; and its port is left: %w", err, left)
		}
		return err
	}
	switch {
	case code(err) == http.StatusConflict:
		return provider.Errorf(provider.Unknown, "openstack: another server may have the port: %w", err)
	case finished(err):
		p.release(ctx, s, port)
	}
	return err
}

// serverBody is the whole request, made of nothing but what is committed and the port.
func (p *Provider) serverBody(request provider.LaunchRequest, portID string, s *session) (servers.CreateOptsBuilder, servers.SchedulerHintOptsBuilder) {
	r := request.Request
	choice := r.GetChoice()
	drive := true
	opts := servers.CreateOpts{
		Name: serverName(r), ImageRef: choice.GetImage(), FlavorRef: choice.GetType(), AvailabilityZone: choice.GetZone(),
		Networks: []servers.Network{{Port: portID}}, Metadata: p.metadata(r), ConfigDrive: &drive,
		// Encoded here: gophercloud would leave alone what happens to look encoded already.
		UserData: []byte(base64.StdEncoding.EncodeToString(request.UserData)),
	}
	if s.tags {
		opts.Tags = p.tags(r)
	}
	opts.BlockDevice = devices(r.GetHardware(), choice, s.volumeTypes)
	if rootVolume(r.GetHardware(), choice) {
		opts.ImageRef = ""
	}
	var hints servers.SchedulerHintOptsBuilder
	if group := choice.GetExtra()[extraGroup]; group != "" {
		hints = servers.SchedulerHintOpts{Group: group}
	}
	if key := r.GetPlacement().GetKeyPair(); key != "" {
		return keypairs.CreateOptsExt{CreateOptsBuilder: opts, KeyName: key}, hints
	}
	return opts, hints
}

// settle watches a new server until Nova has found a host for it, or has given up. One that has never run is deleted again.
func (p *Provider) settle(ctx, whole context.Context, s *session, machineID string, server *servers.Server, port *ports.Port) (provider.Instance, error) {
	deadline := time.Now().Add(placeTime)
	for wait := placePoll; ; wait = min(2*wait, placePollMost) {
		if undecided(server) && ctx.Err() == nil && time.Now().Before(deadline) {
			select {
			case <-ctx.Done():
				return instance(machineID, server, port), nil
			case <-time.After(wait):
			}
			fresh, err := servers.Get(ctx, s.compute, server.ID).Extract()
			switch {
			case missing(err):
				return provider.Instance{}, provider.Errorf(provider.Unknown, "openstack: server %s was deleted while it was launched", server.ID)
			case err != nil:
				return instance(machineID, server, port), nil // it exists; how it goes on is for List to say
			}
			server = fresh
			continue
		}
		if server.TaskState == "deleting" {
			return provider.Instance{}, provider.Errorf(provider.Unknown, "openstack: server %s of the machine was terminated", server.ID)
		}
		if server.Status == "ERROR" && server.LaunchedAt.IsZero() {
			return provider.Instance{}, p.unmake(whole, s, machineID, server)
		}
		return instance(machineID, server, port), nil
	}
}

// undecided reports whether Nova may still find that it has no host for the server.
func undecided(s *servers.Server) bool {
	return s.Status == "BUILD" && (s.TaskState == "" || s.TaskState == "scheduling")
}

// unmake deletes a server that could not be started and all that was made with it, and says why.
func (p *Provider) unmake(ctx context.Context, s *session, machineID string, server *servers.Server) error {
	if server.Fault.Message == "" { // lists leave it out in some versions
		if whole, err := servers.Get(ctx, s.compute, server.ID).Extract(); err == nil {
			server = whole
		}
	}
	why := strings.Join(strings.Fields(server.Fault.Message), " ")
	if why == "" {
		why = "no reason given"
	}
	if err := p.remove(ctx, s, machineID, true); err != nil {
		return provider.Errorf(provider.Unknown, "openstack: server %s could not be started (%s), and not be removed: %w", server.ID, why, err)
	}
	if strings.Contains(why, "Quota") {
		return provider.Errorf(provider.QuotaExceeded, "openstack: the server could not be started: %s", why)
	}
	return provider.Errorf(provider.NoCapacity, "openstack: the server could not be started: %s", why)
}
