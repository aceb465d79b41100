package openstack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/attributestags"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Nova has no idempotency token, so the right to create a machine's server is a thing that Neutron makes only once: a port
// with the machine's address. Whoever has made it creates the server. Whoever finds it without a server may follow only
// when that launch cannot be under way any more, and takes it over by a conditional update.

// claimWindow is how long after a claim a request to create its server may still be under way, in the cloud or in front
// of it: as long as we, or a proxy, wait for its answer.
const claimWindow = callTimeout

// claimed begins the owner of a port between claim and server. Nova replaces it when it plugs the port in, and empties it
// when it deletes the server.
const claimed = "provisionr:launch-"

// portBody is what claims: the description and the address are part of the creation, so no port is ever without an owner.
func (p *Provider) portBody(r *provisionrv1.LaunchRequest) ports.CreateOpts {
	choice := r.GetChoice()
	opts := ports.CreateOpts{
		NetworkID: choice.GetNetwork(), Name: portPrefix + r.GetMachineId(), Description: p.ours(), DeviceOwner: claimed + "0",
	}
	fixed := []ports.IP{{SubnetID: choice.GetSubnet(), IPAddress: r.GetAddress()}}
	if r.GetAddress() == "" {
		// Without an address of ours the claim is a hardware address, which is as exclusive.
		opts.MACAddress = hardwareAddress(p.cluster, r.GetMachineId())
	}
	if six := choice.GetExtra()[extraSubnet6]; six != "" {
		fixed = append(fixed, ports.IP{SubnetID: six})
	}
	if choice.GetSubnet() != "" || r.GetAddress() != "" {
		opts.FixedIPs = fixed
	}
	if groups := choice.GetGroups(); len(groups) > 0 {
		opts.SecurityGroups = &groups
	}
	return opts
}

// hardwareAddress is a locally administered unicast address that only this machine has.
func hardwareAddress(cluster, machineID string) string {
	sum := sha256.Sum256([]byte(cluster + "/" + machineID))
	return net.HardwareAddr{0x02 | sum[0]&0xfc, sum[1], sum[2], sum[3], sum[4], sum[5]}.String()
}

// claim returns the machine's port with the right to create its server. found are the machine's ports.
func (p *Provider) claim(ctx context.Context, s *session, r *provisionrv1.LaunchRequest, found []ports.Port) (*ports.Port, error) {
	if len(found) > 0 {
		return p.takeOver(ctx, s, r, &found[0])
	}
	port, err := ports.Create(ctx, s.network, p.portBody(r)).Extract()
	switch neutronType(err) {
	case "IpAddressAlreadyAllocated", "IpAddressInUse", "MacAddressInUse":
		return nil, p.taken(ctx, s, r)
	case "PolicyNotAuthorized":
		return nil, provider.Errorf(provider.Unauthorized, "openstack: the cloud's policy lets only the owner of a network choose addresses in it: "+
			"use a network of the project: %w", fail(err, "creating a port"))
	}
	if err != nil {
		return nil, definite(fail(err, "creating a port"))
	}
	return port, nil
}

// tagPort gives the port the tags that it cannot be created with. They are for people; name and description are what counts.
func (p *Provider) tagPort(ctx context.Context, s *session, r *provisionrv1.LaunchRequest, port *ports.Port) error {
	tags := p.tags(r)
	if !slices.ContainsFunc(tags, func(t string) bool { return !slices.Contains(port.Tags, t) }) {
		return nil
	}
	_, err := attributestags.ReplaceAll(ctx, s.network, "ports", port.ID, attributestags.ReplaceAllOpts{Tags: tags}).Extract()
	if missing(err) {
		return nil // a cloud without the extension, or no port: Nova says so next
	}
	return fail(err, "tagging a port")
}

// errBusy is the cause of an error that says that another launch of the machine may be about to create its server.
var errBusy = errors.New("another launch is under way")

func busy(after time.Duration, format string, args ...any) error {
	return &provider.Error{Kind: provider.Unknown, After: after, Message: "openstack: " + fmt.Sprintf(format, args...), Err: errBusy}
}

// definite turns the refusal of a request for want of what it names into Invalid: the choice is out of date.
func definite(err error) error {
	var e *provider.Error
	if errors.As(err, &e) && e.Kind == provider.NotFound {
		return &provider.Error{Kind: provider.Invalid, Message: e.Message, Err: err}
	}
	return err
}

// taken says who has the address. A port of this machine is another launch's, a moment ahead.
func (p *Provider) taken(ctx context.Context, s *session, r *provisionrv1.LaunchRequest) error {
	opts := ports.ListOpts{NetworkID: r.GetChoice().GetNetwork()}
	what := "hardware address " + hardwareAddress(p.cluster, r.GetMachineId())
	if r.GetAddress() != "" {
		what = "address " + r.GetAddress()
		opts.FixedIPs = []ports.FixedIPOpts{{IPAddress: r.GetAddress()}}
	} else {
		opts.MACAddress = hardwareAddress(p.cluster, r.GetMachineId())
	}
	holders, err := pages(ctx, ports.List(s.network, opts), ports.ExtractPorts)
	if err != nil {
		return fail(err, "looking for the port with "+what)
	}
	if len(holders) == 0 {
		return provider.Errorf(provider.Invalid, "openstack: %s is taken by a port that this project cannot see", what)
	}
	holder := holders[0]
	if machine, ok := p.claims(&holder); ok {
		if machine == r.GetMachineId() {
			return busy(0, "another launch of machine %s is under way", machine)
		}
		return provider.Errorf(provider.Unknown, "openstack: %s is still that of machine %s", what, machine)
	}
	return provider.Errorf(provider.Invalid, "openstack: %s is taken by port %s (%s), which is not one of this cluster: "+
		"give the network a cidr that is apart from the subnet's allocation pools", what, strings.TrimSpace(holder.ID+" "+holder.Name), owner(&holder))
}

func owner(port *ports.Port) string {
	if port.DeviceOwner == "" {
		return "in no use"
	}
	return port.DeviceOwner
}

// takeOver makes the claim of an earlier launch this one's.
func (p *Provider) takeOver(ctx context.Context, s *session, r *provisionrv1.LaunchRequest, found *ports.Port) (*ports.Port, error) {
	if a := r.GetAddress(); a != "" && !slices.ContainsFunc(found.FixedIPs, func(ip ports.IP) bool { return ip.IPAddress == a }) {
		return nil, provider.Errorf(provider.Unknown, "openstack: port %s of the machine has not address %s", found.ID, a)
	}
	got := ports.Get(ctx, s.network, found.ID)
	port, err := got.Extract()
	if err != nil {
		return nil, provider.Errorf(provider.Unknown, "openstack: %w", fail(err, "looking at a port"))
	}
	if left := remaining(port, got.Header); left > 0 {
		return nil, busy(left, "an earlier launch may still create the server of port %s: try again in %s", port.ID, left)
	}
	mark := fmt.Sprintf("%s%d", claimed, port.RevisionNumber)
	taken, err := ports.Update(ctx, s.network, port.ID, ports.UpdateOpts{DeviceOwner: &mark, RevisionNumber: &port.RevisionNumber}).Extract()
	switch {
	case code(err) == http.StatusPreconditionFailed:
		return nil, busy(0, "another launch has taken port %s", port.ID)
	case err != nil:
		return nil, provider.Errorf(provider.Unknown, "openstack: %w", fail(err, "taking over a port"))
	}
	return taken, nil
}

// remaining is how long the claim that the port shows may still be at work, by the cloud's own clock.
func remaining(port *ports.Port, h http.Header) time.Duration {
	if port.DeviceID != "" {
		// Its server is gone, or it would have been found: Nova is about to let go of the port.
		return 0
	}
	if !strings.HasPrefix(port.DeviceOwner, claimed) {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(claimWindow-now.Sub(port.UpdatedAt), 0), claimWindow)
}

// release says that the claim's launch has ended without a server, so that the next need not wait. It is not needed: claims
// end by themselves.
func (p *Provider) release(ctx context.Context, s *session, found *ports.Port) {
	port, err := ports.Get(ctx, s.network, found.ID).Extract()
	if err == nil && port.DeviceID == "" && strings.HasPrefix(port.DeviceOwner, claimed) {
		none := ""
		_, err = ports.Update(ctx, s.network, port.ID, ports.UpdateOpts{DeviceOwner: &none, RevisionNumber: &port.RevisionNumber}).Extract()
	}
	if err != nil {
		p.log.Debug("cannot release claim", "port", found.ID, "err", fail(err, "releasing a port"))
	}
}
