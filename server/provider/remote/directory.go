package remote

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/netip"

	"google.golang.org/grpc"

	"github.com/provisionr/provisionr/internal/errs"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Conns gives connections to other members.
type Conns interface {
	Conn(ctx context.Context, member string) (*grpc.ClientConn, error)
}

// Config of a Directory.
type Config struct {
	// Self is this member's name. Required.
	Self string
	// Local has the providers that run on this member, host-bound or not. Required.
	Local *provider.Registry
	// Owner returns the member that owns a host-bound provider, or "" for a provider that any member can call. Required.
	Owner func(providerName string) string
	// Capabilities returns the constant capabilities of a provider that another member owns. Required.
	Capabilities func(providerName string) provider.Capabilities
	// Conns reaches other members. Required.
	Conns Conns
}

// Directory finds providers wherever they run.
type Directory struct{ config Config }

// NewDirectory returns a directory.
func NewDirectory(c Config) (*Directory, error) {
	if c.Self == "" || c.Local == nil || c.Owner == nil || c.Capabilities == nil || c.Conns == nil {
		return nil, errs.New(errs.Internal, "cannot make a provider directory: a required field of its configuration is missing")
	}
	return &Directory{c}, nil
}

// Provider returns the provider of that name: the one that runs here, or one that calls its owner. The latter has firewall
// groups where its capabilities say so.
func (d *Directory) Provider(name string) (provider.Provider, error) {
	if owner := d.config.Owner(name); owner != "" && owner != d.config.Self {
		c := &client{name: name, owner: owner, conns: d.config.Conns, capabilities: d.config.Capabilities(name)}
		if c.capabilities.Grouped {
			return grouped{c}, nil
		}
		return c, nil
	}
	return d.config.Local.Provider(name)
}

// client calls the owner of a provider.
type client struct {
	name, owner  string
	conns        Conns
	capabilities provider.Capabilities
}

func (c *client) Capabilities() provider.Capabilities { return c.capabilities }

func (c *client) service(ctx context.Context) (memberv1.ProviderServiceClient, error) {
	conn, err := c.conns.Conn(ctx, c.owner)
	if err != nil {
		return nil, provider.Errorf(provider.Unknown, "cannot reach %s, the owner of provider %s: %w", c.owner, c.name, err)
	}
	return memberv1.NewProviderServiceClient(conn), nil
}

func (c *client) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		// The stream ends with this context where the caller stops early.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		service, err := c.service(ctx)
		if err != nil {
			yield(provider.Instance{}, err)
			return
		}
		stream, err := service.List(ctx, &memberv1.ListRequest{Provider: c.name})
		for err == nil {
			var m *memberv1.Instance
			if m, err = stream.Recv(); err != nil {
				break
			}
			var i provider.Instance
			if i, err = decode(m); err == nil && !yield(i, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(provider.Instance{}, provider.FromRPC(err))
		}
	}
}

func (c *client) Launch(ctx context.Context, r provider.LaunchRequest) (provider.Instance, error) {
	service, err := c.service(ctx)
	if err != nil {
		return provider.Instance{}, err
	}
	m, err := service.Launch(ctx, &memberv1.LaunchRequest{Provider: c.name, Request: r.Request, UserData: r.UserData})
	if err != nil {
		return provider.Instance{}, provider.FromRPC(err)
	}
	return decode(m)
}

func (c *client) Terminate(ctx context.Context, machineID, providerID string) error {
	service, err := c.service(ctx)
	if err != nil {
		return err
	}
	_, err = service.Terminate(ctx, &memberv1.TerminateRequest{Provider: c.name, MachineId: machineID, ProviderId: providerID})
	return provider.FromRPC(err)
}

func (c *client) Resolve(ctx context.Context, wish *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	service, err := c.service(ctx)
	if err != nil {
		return nil, err
	}
	offer, err := service.Resolve(ctx, &memberv1.ResolveRequest{Provider: c.name, Wish: wish})
	if err != nil {
		return nil, provider.FromRPC(err)
	}
	return offer, nil
}

func (c *client) Prune(ctx context.Context, machineID, keep string) error {
	service, err := c.service(ctx)
	if err != nil {
		return err
	}
	_, err = service.Prune(ctx, &memberv1.PruneRequest{Provider: c.name, MachineId: machineID, Keep: keep})
	return provider.FromRPC(err)
}

func (c *client) Console(ctx context.Context, machineID, providerID string) (string, error) {
	service, err := c.service(ctx)
	if err != nil {
		return "", err
	}
	r, err := service.Console(ctx, &memberv1.ConsoleRequest{Provider: c.name, MachineId: machineID, ProviderId: providerID})
	return r.GetConsole(), provider.FromRPC(err)
}

func (c *client) EnsureNetwork(ctx context.Context, n *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	service, err := c.service(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := service.EnsureNetwork(ctx, &memberv1.EnsureNetworkRequest{Provider: c.name, Network: n})
	if err != nil {
		return nil, provider.FromRPC(err)
	}
	return spec, nil
}

func decode(m *memberv1.Instance) (provider.Instance, error) {
	i := provider.Instance{
		MachineID: m.GetMachineId(), ProviderID: m.GetProviderId(), State: provider.State(m.GetState()), Notice: m.GetNotice(),
	}
	switch i.State {
	case provider.Starting, provider.Running, provider.Stopped, provider.Gone:
	default:
		return provider.Instance{}, provider.Errorf(provider.Unknown, "machine %s is in a state unknown to this version: %q", i.MachineID, m.GetState())
	}
	for _, a := range []struct {
		text string
		to   *netip.Addr
	}{{m.GetAddress(), &i.Address}, {m.GetAddress6(), &i.Address6}} {
		if a.text == "" {
			continue
		}
		address, err := netip.ParseAddr(a.text)
		if err != nil {
			return provider.Instance{}, provider.Errorf(provider.Unknown, "machine %s: %w", i.MachineID, err)
		}
		*a.to = address
	}
	return i, nil
}
