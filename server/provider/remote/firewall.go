package remote

import (
	"context"
	"net/netip"

	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// groups returns the firewall groups of a provider that runs here.
func (s *Server) groups(name string) (provider.FirewallGroups, error) {
	p, err := s.providers.Provider(name)
	if err != nil {
		return nil, err
	}
	groups, ok := p.(provider.FirewallGroups)
	if !ok {
		return nil, provider.Errorf(provider.Invalid, "provider %s has no firewall groups", name)
	}
	return groups, nil
}

// EnsureFirewall makes a group right on this host.
func (s *Server) EnsureFirewall(ctx context.Context, r *memberv1.FirewallRequest) (*memberv1.EnsureFirewallResponse, error) {
	groups, err := s.groups(r.GetProvider())
	if err != nil {
		return nil, err
	}
	firewall, err := decodeFirewall(r)
	if err != nil {
		return nil, err
	}
	if err := groups.EnsureFirewall(ctx, firewall); err != nil {
		return nil, kinded(err)
	}
	return &memberv1.EnsureFirewallResponse{}, nil
}

// PlanFirewall says what EnsureFirewall would do on this host.
func (s *Server) PlanFirewall(ctx context.Context, r *memberv1.FirewallRequest) (*memberv1.PlanFirewallResponse, error) {
	groups, err := s.groups(r.GetProvider())
	if err != nil {
		return nil, err
	}
	firewall, err := decodeFirewall(r)
	if err != nil {
		return nil, err
	}
	lines, err := groups.PlanFirewall(ctx, firewall)
	if err != nil {
		return nil, kinded(err)
	}
	return &memberv1.PlanFirewallResponse{Lines: lines}, nil
}

// Firewalls lists the groups on this host.
func (s *Server) Firewalls(ctx context.Context, r *memberv1.FirewallsRequest) (*memberv1.FirewallsResponse, error) {
	groups, err := s.groups(r.GetProvider())
	if err != nil {
		return nil, err
	}
	pools, err := groups.Firewalls(ctx)
	if err != nil {
		return nil, kinded(err)
	}
	return &memberv1.FirewallsResponse{Pools: pools}, nil
}

// DeleteFirewall deletes a group on this host.
func (s *Server) DeleteFirewall(ctx context.Context, r *memberv1.DeleteFirewallRequest) (*memberv1.DeleteFirewallResponse, error) {
	groups, err := s.groups(r.GetProvider())
	if err != nil {
		return nil, err
	}
	if err := groups.DeleteFirewall(ctx, r.GetPool()); err != nil {
		return nil, kinded(err)
	}
	return &memberv1.DeleteFirewallResponse{}, nil
}

// grouped is a client of a provider with firewall groups.
type grouped struct{ *client }

func (c grouped) EnsureFirewall(ctx context.Context, f provider.Firewall) error {
	service, err := c.service(ctx)
	if err != nil {
		return err
	}
	_, err = service.EnsureFirewall(ctx, encodeFirewall(c.name, f))
	return provider.FromRPC(err)
}

func (c grouped) PlanFirewall(ctx context.Context, f provider.Firewall) ([]string, error) {
	service, err := c.service(ctx)
	if err != nil {
		return nil, err
	}
	r, err := service.PlanFirewall(ctx, encodeFirewall(c.name, f))
	return r.GetLines(), provider.FromRPC(err)
}

func (c grouped) Firewalls(ctx context.Context) ([]string, error) {
	service, err := c.service(ctx)
	if err != nil {
		return nil, err
	}
	r, err := service.Firewalls(ctx, &memberv1.FirewallsRequest{Provider: c.name})
	return r.GetPools(), provider.FromRPC(err)
}

func (c grouped) DeleteFirewall(ctx context.Context, pool string) error {
	service, err := c.service(ctx)
	if err != nil {
		return err
	}
	_, err = service.DeleteFirewall(ctx, &memberv1.DeleteFirewallRequest{Provider: c.name, Pool: pool})
	return provider.FromRPC(err)
}

func encodeFirewall(name string, f provider.Firewall) *memberv1.FirewallRequest {
	r := &memberv1.FirewallRequest{Provider: name, ClusterId: f.ClusterID, ClusterName: f.ClusterName, Pool: f.Pool, Network: f.Network}
	for _, rule := range f.Rules {
		one := &memberv1.FirewallRule{Protocol: rule.Protocol, First: uint32(rule.First), Last: uint32(rule.Last), Pool: rule.Pool}
		if rule.From.IsValid() {
			one.From = rule.From.String()
		}
		r.Rules = append(r.Rules, one)
	}
	return r
}

func decodeFirewall(r *memberv1.FirewallRequest) (provider.Firewall, error) {
	f := provider.Firewall{ClusterID: r.GetClusterId(), ClusterName: r.GetClusterName(), Pool: r.GetPool(), Network: r.GetNetwork()}
	for _, one := range r.GetRules() {
		const most = 1<<16 - 1
		if one.GetFirst() > most || one.GetLast() > most || (one.GetFrom() == "") == (one.GetPool() == "") {
			return f, provider.Errorf(provider.Invalid, "cannot use the rule %v", one)
		}
		rule := provider.FirewallRule{Protocol: one.GetProtocol(), First: uint16(one.GetFirst()), Last: uint16(one.GetLast()), Pool: one.GetPool()}
		if one.GetFrom() != "" {
			from, err := netip.ParsePrefix(one.GetFrom())
			if err != nil {
				return f, provider.Errorf(provider.Invalid, "cannot use the rule %v: %w", one, err)
			}
			rule.From = from
		}
		f.Rules = append(f.Rules, rule)
	}
	return f, nil
}
