package sim

import (
	"cmp"
	"context"
	"iter"
	"net/netip"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Provider reaches a Cloud on behalf of one cluster.
type Provider struct {
	cloud   *Cloud
	cluster string
	limiter *provider.Limiter
}

// Limiter returns the limiter that all calls wait for.
func (p *Provider) Limiter() *provider.Limiter { return p.limiter }

// Cloud returns the cloud that the provider reaches.
func (p *Provider) Cloud() *Cloud { return p.cloud }

// Capabilities implements provider.Provider.
func (p *Provider) Capabilities() provider.Capabilities {
	c := p.cloud.Capabilities
	c.UserDataLimit = cmp.Or(c.UserDataLimit, 16<<10)
	return c
}

// List implements provider.Provider: one call for each page.
func (p *Provider) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	return func(yield func(provider.Instance, error) bool) {
		after := ""
		for more := true; more; {
			var page []provider.Instance
			err := p.call(ctx, opList, "", func() error {
				page, more = p.cloud.page(p.cluster, after, p.cloud.Capabilities.ListPage)
				return nil
			})
			if err != nil {
				yield(provider.Instance{}, err)
				return
			}
			for _, i := range page {
				after = i.ProviderID
				if !yield(i, nil) {
					return
				}
			}
		}
	}
}

// Launch implements provider.Provider: a call that has the machine id as its token. After the first attempt it looks for
// the machine before: the token is that of the attempt.
func (p *Provider) Launch(ctx context.Context, r provider.LaunchRequest) (provider.Instance, error) {
	id := r.Request.GetMachineId()
	switch {
	case id == "":
		return provider.Instance{}, provider.Errorf(provider.Invalid, "the request names no machine")
	case len(r.UserData) > p.Capabilities().UserDataLimit:
		return provider.Instance{}, provider.Errorf(provider.Invalid, "user-data has %d bytes, more than %d", len(r.UserData), p.Capabilities().UserDataLimit)
	}
	var made provider.Instance
	if r.Request.GetAttempt() > 1 {
		if err := p.call(ctx, opFind, id, func() error {
			if there := p.cloud.of(machineKey{p.cluster, id}); len(there) > 0 {
				made = there[0].Instance
			}
			return nil
		}); err != nil || made.ProviderID != "" {
			return made, err
		}
	}
	err := p.call(ctx, opLaunch, id, func() (err error) {
		made, err = p.cloud.create(p.cluster, r)
		return err
	})
	if err != nil {
		return provider.Instance{}, err
	}
	return made, nil
}

// Terminate implements provider.Provider.
func (p *Provider) Terminate(ctx context.Context, machineID, _ string) error {
	return p.call(ctx, opTerminate, machineID, func() error {
		key := machineKey{p.cluster, machineID}
		for _, i := range p.cloud.of(key) {
			p.cloud.remove(i, true)
		}
		delete(p.cloud.leftovers, key)
		return nil
	})
}

// Prune implements provider.Provider.
func (p *Provider) Prune(ctx context.Context, machineID, keep string) error {
	return p.call(ctx, opPrune, machineID, func() error {
		if i := p.cloud.instances[keep]; i == nil || i.MachineID != machineID || i.Cluster != p.cluster {
			return provider.Errorf(provider.NotFound, "machine %s has no instance %q to keep", machineID, keep)
		}
		for _, i := range p.cloud.of(machineKey{p.cluster, machineID}) {
			if i.ProviderID != keep {
				p.cloud.remove(i, false)
			}
		}
		return nil
	})
}

// Resolve implements provider.Provider.
func (p *Provider) Resolve(ctx context.Context, w *provisionrv1.Wish) (offer *provisionrv1.Offer, err error) {
	err = p.call(ctx, opResolve, "", func() (err error) {
		offer, err = p.cloud.offer(w)
		return err
	})
	if err != nil {
		return nil, err
	}
	return offer, nil
}

// EnsureNetwork implements provider.Provider. Any range is usable where Provisionr assigns the addresses.
func (p *Provider) EnsureNetwork(ctx context.Context, n *provisionrv1.Network) (spec *provisionrv1.NetworkSpec, err error) {
	err = p.call(ctx, opNetwork, "", func() error {
		_, prefix, err := p.cloud.network(n.GetSpec().GetId())
		if err != nil {
			return err
		}
		spec = proto.CloneOf(n.GetSpec())
		spec.Cidr = cmp.Or(spec.GetCidr(), prefix.String())
		cidr, err := netip.ParsePrefix(spec.GetCidr())
		if err != nil {
			return provider.Errorf(provider.Invalid, "cannot use network: %w", err)
		}
		if spec.GetGateway() == "" {
			spec.Gateway = cidr.Masked().Addr().Next().String()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return spec, nil
}

// Console implements provider.Provider.
func (p *Provider) Console(ctx context.Context, machineID, _ string) (text string, err error) {
	err = p.call(ctx, opConsole, machineID, func() error {
		there := p.cloud.of(machineKey{p.cluster, machineID})
		if len(there) == 0 {
			return provider.Errorf(provider.NotFound, "no machine %q", machineID)
		}
		text = there[0].Console
		return nil
	})
	return text, err
}
