package static

import (
	"context"
	"iter"
	"net/netip"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// userDataLimit is for what a person's machine fetches instead, which is no larger.
const userDataLimit = 64 << 10

// Config of a Provider. All fields are required.
type Config struct {
	// Name of the Provider object.
	Name string
	// Machines yields the records of all machines, as fresh as this member has them.
	Machines func() iter.Seq[*provisionrv1.Machine]
}

// Provider has the machines that were adopted. It is safe for concurrent use.
type Provider struct{ config Config }

var _ provider.Provider = (*Provider)(nil)

// New returns a provider. It calls nobody.
func New(c Config) (*Provider, error) {
	if c.Name == "" || c.Machines == nil {
		return nil, provider.Errorf(provider.Invalid, "cannot make a static provider: a required field of its configuration is missing")
	}
	return &Provider{c}, nil
}

// List implements provider.Provider. It is always complete.
func (p *Provider) List(context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		for m := range p.config.Machines() {
			if p.has(m) && !yield(instance(m), nil) {
				return
			}
		}
	}
}

// has reports whether the machine is one of this provider's that exists.
func (p *Provider) has(m *provisionrv1.Machine) bool {
	switch m.GetStatus().GetPhase() {
	case provisionrv1.Phase_PHASE_TERMINATING, provisionrv1.Phase_PHASE_GONE:
		return false
	}
	return m.GetSpec().GetProvider() == p.config.Name && m.GetStatus().GetLaunch() != nil
}

func instance(m *provisionrv1.Machine) provider.Instance {
	id := m.GetMetadata().GetName()
	i := provider.Instance{MachineID: id, ProviderID: id, State: provider.Starting}
	if m.GetStatus().GetSessionSeen() {
		i.State = provider.Running
	}
	// An address that cannot be read is as unknown as none.
	i.Address, _ = netip.ParseAddr(m.GetStatus().GetAddress())
	i.Address6, _ = netip.ParseAddr(m.GetStatus().GetAddress6())
	return i
}

// Resolve implements provider.Provider: what a person brings is taken as it is, and proves itself afterwards.
func (p *Provider) Resolve(_ context.Context, w *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	return &provisionrv1.Offer{
		Choices: []*provisionrv1.Choice{{
			ImageName: "existing machine", Architecture: w.GetHardware().GetArchitecture(), PriceClass: "yours",
			Cpus: w.GetHardware().GetCpus(), MemoryMib: w.GetHardware().GetMemoryMib(),
		}},
		Warnings: []string{"each machine waits until a person has it join: see `provisionr machine adopt --help`"},
	}, nil
}

// Launch implements provider.Provider: it answers at once with a machine that waits to be adopted.
func (p *Provider) Launch(_ context.Context, r provider.LaunchRequest) (provider.Instance, error) {
	id := r.Request.GetMachineId()
	switch {
	case id == "":
		return provider.Instance{}, provider.Errorf(provider.Invalid, "the request names no machine")
	case len(r.UserData) > userDataLimit:
		return provider.Instance{}, provider.Errorf(provider.Invalid, "user-data has %d bytes, more than %d", len(r.UserData), userDataLimit)
	}
	for m := range p.config.Machines() {
		if m.GetMetadata().GetName() != id {
			continue
		}
		if !p.has(m) {
			break
		}
		return instance(m), nil
	}
	return provider.Instance{}, provider.Errorf(provider.Unknown, "machine %s is not to exist: its record is gone or terminating", id)
}

// Terminate implements provider.Provider. The machine itself is nobody's business: its agent is refused from now on.
func (p *Provider) Terminate(context.Context, string, string) error { return nil }

// Prune implements provider.Provider: two machines with one identity are quarantined where they connect.
func (p *Provider) Prune(context.Context, string, string) error { return nil }

// EnsureNetwork implements provider.Provider: the network is what a person says it is.
func (p *Provider) EnsureNetwork(_ context.Context, n *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	if _, err := netip.ParsePrefix(n.GetSpec().GetCidr()); err != nil {
		return nil, provider.Errorf(provider.Invalid, "network %s needs its range: machines that are adopted cannot say it: %w", n.GetMetadata().GetName(), err)
	}
	return proto.CloneOf(n.GetSpec()), nil
}

// Console implements provider.Provider: it says that there is none to be had.
func (p *Provider) Console(_ context.Context, machineID, _ string) (string, error) {
	for m := range p.config.Machines() {
		if m.GetMetadata().GetName() == machineID && p.has(m) {
			return "this machine was adopted: its console is known to those who run it, not here\n", nil
		}
	}
	return "", provider.Errorf(provider.NotFound, "no machine %q", machineID)
}

// Capabilities implements provider.Provider.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{Adopted: true, UserDataLimit: userDataLimit}
}
