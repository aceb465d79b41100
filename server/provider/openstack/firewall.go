package openstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/attributestags"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/groups"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"github.com/provisionr/provisionr/server/provider"
)

// groupName is the name of a pool's security group.
func (p *Provider) groupName(pool string) string { return "provisionr-" + p.cluster + "-" + pool }

// allGroups lists the cluster's groups by pool, oldest first. More than one has the pool where two made it at once.
func (p *Provider) allGroups(ctx context.Context, s *session) (map[string][]groups.SecGroup, error) {
	all, err := pages(ctx, groups.List(s.network, groups.ListOpts{Description: p.ours(), Limit: listPage}), groups.ExtractGroups)
	if err != nil {
		return nil, fail(err, "listing security groups")
	}
	slices.SortFunc(all, func(a, b groups.SecGroup) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	found := map[string][]groups.SecGroup{}
	for _, group := range all {
		if pool, ok := strings.CutPrefix(group.Name, p.groupName("")); ok && group.Description == p.ours() {
			found[pool] = append(found[pool], group)
		}
	}
	return found, nil
}

// groups returns the cluster's group of each pool: the oldest, on which all callers agree.
func (p *Provider) groups(ctx context.Context, s *session) (map[string]groups.SecGroup, error) {
	all, err := p.allGroups(ctx, s)
	found := map[string]groups.SecGroup{}
	for pool, some := range all {
		found[pool] = some[0]
	}
	return found, err
}

// EnsureFirewall makes the pool's security group, and those that it names, and gives it exactly these rules: new rules come
// before old ones go, so that what both allow is never cut off.
func (p *Provider) EnsureFirewall(ctx context.Context, firewall provider.Firewall) error {
	s, err := p.open(ctx)
	if err != nil {
		return err
	}
	there, err := p.groups(ctx, s)
	if err != nil {
		return err
	}
	for _, pool := range named(firewall) {
		if _, ok := there[pool]; ok {
			continue
		}
		if there[pool], err = p.makeGroup(ctx, s, pool); err != nil {
			return err
		}
	}
	group := there[firewall.Pool]
	missing, extra := difference(wanted(firewall.Rules, func(pool string) string { return there[pool].ID }), group.Rules)
	for _, r := range missing {
		_, err := rules.Create(ctx, s.network, r.body(group.ID)).Extract()
		if neutronType(err) == "SecurityGroupRuleExists" {
			continue
		}
		if err != nil {
			return definite(fail(err, "adding a rule to group "+group.Name))
		}
	}
	for _, r := range extra {
		if err := absentOr(rules.Delete(ctx, s.network, r.ID).ExtractErr(), "deleting a rule of group "+group.Name); err != nil {
			return err
		}
	}
	return nil
}

// named are the pools whose groups the firewall needs, its own first.
func named(firewall provider.Firewall) []string {
	pools := []string{firewall.Pool}
	for _, r := range firewall.Rules {
		if r.Pool != "" && !slices.Contains(pools, r.Pool) {
			pools = append(pools, r.Pool)
		}
	}
	return pools
}

// makeGroup makes the pool's group. Neutron allows two of one name: who finds an older one after that deletes the own one.
func (p *Provider) makeGroup(ctx context.Context, s *session, pool string) (groups.SecGroup, error) {
	made, err := groups.Create(ctx, s.network, groups.CreateOpts{Name: p.groupName(pool), Description: p.ours()}).Extract()
	if err != nil {
		return groups.SecGroup{}, fail(err, "creating security group "+p.groupName(pool))
	}
	_, err = attributestags.ReplaceAll(ctx, s.network, "security-groups", made.ID,
		attributestags.ReplaceAllOpts{Tags: []string{tag(keyCluster, p.cluster), tag(keyPool, pool)}}).Extract()
	if err != nil {
		p.log.Warn("cannot tag security group", "pool", pool, "err", fail(err, "tagging a security group"))
	}
	all, err := p.allGroups(ctx, s)
	if err != nil {
		return groups.SecGroup{}, err
	}
	if len(all[pool]) == 0 {
		return groups.SecGroup{}, provider.Errorf(provider.Unknown, "openstack: security group %s is gone again", made.Name)
	}
	first := all[pool][0]
	if first.ID != made.ID {
		err = absentOr(groups.Delete(ctx, s.network, made.ID).ExtractErr(), "deleting the second security group "+made.Name)
	}
	return first, err
}

// PlanFirewall says what EnsureFirewall would change.
func (p *Provider) PlanFirewall(ctx context.Context, firewall provider.Firewall) ([]string, error) {
	s, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	there, err := p.groups(ctx, s)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, pool := range named(firewall) {
		if _, ok := there[pool]; !ok {
			lines = append(lines, "create security group "+p.groupName(pool))
			// Its rules must not look like those from anywhere.
			there[pool] = groups.SecGroup{ID: "new/" + pool}
		}
	}
	pools := p.poolsOf(there)
	group, rulesThere := there[firewall.Pool], there[firewall.Pool].Rules
	if strings.HasPrefix(group.ID, "new/") {
		for _, r := range outbound {
			rulesThere = append(rulesThere, rules.SecGroupRule{Direction: r.direction, EtherType: r.ether})
		}
	}
	missing, extra := difference(wanted(firewall.Rules, func(pool string) string { return there[pool].ID }), rulesThere)
	for _, r := range missing {
		lines = append(lines, r.text(pools))
	}
	for _, r := range extra {
		lines = append(lines, "remove "+read(r).text(pools))
	}
	// A rule from a pool is one for each IP version.
	seen := map[string]bool{}
	return slices.DeleteFunc(lines, func(line string) bool {
		again := seen[line]
		seen[line] = true
		return again
	}), nil
}

// poolsOf names pools by the ids of their groups; any other group has its id as its name.
func (p *Provider) poolsOf(all map[string]groups.SecGroup) func(string) string {
	byID := map[string]string{}
	for pool, group := range all {
		byID[group.ID] = pool
	}
	return func(id string) string { return cmp.Or(byID[id], id) }
}

// Firewalls returns the pools that have a group.
func (p *Provider) Firewalls(ctx context.Context) ([]string, error) {
	s, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	all, err := p.allGroups(ctx, s)
	return slices.Sorted(maps.Keys(all)), err
}

// DeleteFirewall deletes the pool's groups, after the rules of the cluster's other groups that name them.
func (p *Provider) DeleteFirewall(ctx context.Context, pool string) error {
	s, err := p.open(ctx)
	if err != nil {
		return err
	}
	all, err := p.allGroups(ctx, s)
	if err != nil {
		return err
	}
	for _, group := range all[pool] {
		// First the question, so that a group that stays keeps the rules that name it.
		used, err := pages(ctx, ports.List(s.network, ports.ListOpts{SecurityGroups: []string{group.ID}}), ports.ExtractPorts)
		if err != nil {
			return fail(err, "listing the ports of group "+group.Name)
		}
		if len(used) > 0 {
			return inUse(group.Name, fmt.Sprintf("%d ports", len(used)))
		}
		for _, others := range all {
			for _, other := range others {
				err = errors.Join(err, p.forget(ctx, s, other, group.ID))
			}
		}
		if err != nil {
			return join(err)
		}
		err = groups.Delete(ctx, s.network, group.ID).ExtractErr()
		if code(err) == http.StatusConflict {
			return inUse(group.Name, "a port")
		}
		if err := absentOr(err, "deleting security group "+group.Name); err != nil {
			return err
		}
	}
	return nil
}

func inUse(group, by string) error {
	return provider.Errorf(provider.Unknown, "openstack: security group %s is still used by %s", group, by)
}

// forget deletes the rules of a group that name another.
func (p *Provider) forget(ctx context.Context, s *session, group groups.SecGroup, named string) error {
	var failed error
	for _, r := range group.Rules {
		if r.RemoteGroupID == named && group.ID != named {
			failed = errors.Join(failed, absentOr(rules.Delete(ctx, s.network, r.ID).ExtractErr(), "deleting a rule of group "+group.Name))
		}
	}
	return failed
}
