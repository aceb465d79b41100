package sim

import (
	"context"
	"fmt"
	"slices"

	"github.com/provisionr/provisionr/server/provider"
)

type groupKey struct{ cluster, pool string }

// group is a firewall group in front of the machines of a pool.
type group struct {
	id    string
	rules []provider.FirewallRule
}

func (c *Cloud) groupOf(id string) *group {
	for _, g := range c.groups {
		if g.id == id {
			return g
		}
	}
	return nil
}

// ensureGroup returns the group, made if need be.
func (c *Cloud) ensureGroup(key groupKey) *group {
	if g := c.groups[key]; g != nil {
		return g
	}
	if c.groups == nil {
		c.groups = map[groupKey]*group{}
	}
	c.serial++
	g := &group{id: fmt.Sprintf("group-%08d", c.serial)}
	c.groups[key] = g
	return g
}

// Rules returns the rules of a pool's group, if there is one.
func (c *Cloud) Rules(cluster, pool string) (rules []provider.FirewallRule, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groups[groupKey{cluster, pool}]
	if g == nil {
		return nil, false
	}
	return slices.Clone(g.rules), true
}

// AddRule adds a rule to a pool's group, as a person might by hand.
func (c *Cloud) AddRule(cluster, pool string, rule provider.FirewallRule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.ensureGroup(groupKey{cluster, pool})
	g.rules = append(g.rules, rule)
}

// change is what takes a group from what it is to what it is to be.
type change struct {
	create      []string
	add, remove []provider.FirewallRule
}

func (p *Provider) compare(ctx context.Context, f provider.Firewall) (d change, err error) {
	if _, err := p.ensured(f); err != nil {
		return d, err
	}
	err = p.call(ctx, opGroups, "", func() error {
		var present []provider.FirewallRule
		if g := p.cloud.groups[groupKey{p.cluster, f.Pool}]; g != nil {
			present = g.rules
		} else {
			d.create = append(d.create, f.Pool)
		}
		for _, rule := range f.Rules {
			if !slices.Contains(present, rule) {
				d.add = append(d.add, rule)
			}
			named := groupKey{p.cluster, rule.Pool}
			if rule.Pool != "" && p.cloud.groups[named] == nil && !slices.Contains(d.create, rule.Pool) {
				d.create = append(d.create, rule.Pool)
			}
		}
		for _, rule := range present {
			if !slices.Contains(f.Rules, rule) {
				d.remove = append(d.remove, rule)
			}
		}
		return nil
	})
	return d, err
}

// ensured checks what the caller says.
func (p *Provider) ensured(f provider.Firewall) (provider.Firewall, error) {
	if f.ClusterID != p.cluster || f.Pool == "" {
		return f, provider.Errorf(provider.Invalid, "firewall of pool %q is not of cluster %s", f.Pool, p.cluster)
	}
	_, _, err := p.cloud.network(f.Network.GetSpec().GetId())
	return f, err
}

// EnsureFirewall implements provider.FirewallGroups: a call to look, one to make each group, one to add and one to remove.
func (p *Provider) EnsureFirewall(ctx context.Context, f provider.Firewall) error {
	d, err := p.compare(ctx, f)
	if err != nil {
		return err
	}
	for _, pool := range d.create {
		if err := p.call(ctx, opFirewall, "", func() error {
			p.cloud.ensureGroup(groupKey{p.cluster, pool})
			return nil
		}); err != nil {
			return err
		}
	}
	// What is allowed comes before what is not any more, so that no rule that just changes its form cuts anyone off.
	for _, edit := range []struct {
		rules []provider.FirewallRule
		apply func(*group)
	}{
		{d.add, func(g *group) {
			for _, rule := range d.add {
				if !slices.Contains(g.rules, rule) {
					g.rules = append(g.rules, rule)
				}
			}
		}},
		{d.remove, func(g *group) {
			g.rules = slices.DeleteFunc(g.rules, func(r provider.FirewallRule) bool { return slices.Contains(d.remove, r) })
		}},
	} {
		if len(edit.rules) == 0 {
			continue
		}
		if err := p.call(ctx, opFirewall, "", func() error {
			g := p.cloud.groups[groupKey{p.cluster, f.Pool}]
			if g == nil {
				return provider.Errorf(provider.Unknown, "the group of pool %s was deleted meanwhile", f.Pool)
			}
			edit.apply(g)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// PlanFirewall implements provider.FirewallGroups.
func (p *Provider) PlanFirewall(ctx context.Context, f provider.Firewall) ([]string, error) {
	d, err := p.compare(ctx, f)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, pool := range d.create {
		lines = append(lines, "create the group of pool "+pool)
	}
	for _, rule := range d.add {
		lines = append(lines, rule.String())
	}
	for _, rule := range d.remove {
		lines = append(lines, "no longer "+rule.String())
	}
	return lines, nil
}

// Firewalls implements provider.FirewallGroups.
func (p *Provider) Firewalls(ctx context.Context) (pools []string, err error) {
	err = p.call(ctx, opGroups, "", func() error {
		for key := range p.cloud.groups {
			if key.cluster == p.cluster {
				pools = append(pools, key.pool)
			}
		}
		slices.Sort(pools)
		return nil
	})
	return pools, err
}

// DeleteFirewall implements provider.FirewallGroups.
func (p *Provider) DeleteFirewall(ctx context.Context, pool string) error {
	key := groupKey{p.cluster, pool}
	there := false
	if err := p.call(ctx, opGroups, "", func() error {
		_, there = p.cloud.groups[key]
		return nil
	}); err != nil || !there {
		return err
	}
	return p.call(ctx, opDeleteFirewall, "", func() error {
		g := p.cloud.groups[key]
		if g == nil {
			return nil
		}
		for _, i := range p.cloud.instances {
			if slices.Contains(i.Request.GetChoice().GetGroups(), g.id) {
				return provider.Errorf(provider.Unknown, "the group of pool %s is used by machine %s", pool, i.MachineID)
			}
		}
		for other, g := range p.cloud.groups {
			if other.cluster == p.cluster {
				g.rules = slices.DeleteFunc(g.rules, func(r provider.FirewallRule) bool { return r.Pool == pool })
			}
		}
		delete(p.cloud.groups, key)
		return nil
	})
}
