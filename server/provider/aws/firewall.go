package aws

import (
	"context"
	"slices"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/provisionr/provisionr/server/provider"
)

// EnsureFirewall implements provider.FirewallGroups. What is missing is allowed before what is too much is removed, so
// that a rule which only changes its form does not fail in between.
func (p *Provider) EnsureFirewall(ctx context.Context, f provider.Firewall) error {
	n, err := p.findNetwork(ctx, f.Network)
	if err != nil {
		return err
	}
	if err := p.firewall.acquire(ctx); err != nil {
		return err
	}
	defer p.firewall.release()
	groups, err := p.groups(ctx, n.id)
	if err != nil {
		return err
	}
	ids := map[string]string{}
	for _, pool := range poolsOf(f) {
		group, ok := groups[pool]
		if !ok {
			if group, err = p.createGroup(ctx, n, pool); err != nil {
				return err
			}
			groups[pool] = group
		}
		ids[pool] = awssdk.ToString(group.GroupId)
	}
	own := groups[f.Pool]
	if err := p.ensureEgress(ctx, n, own); err != nil {
		return err
	}
	add, remove, err := changes(f, own, ids)
	if err != nil {
		return err
	}
	if err := p.authorize(ctx, ids[f.Pool], add); err != nil {
		// The number of rules of a group is limited: with what is removed there may be room.
		if provider.KindOf(err) != provider.QuotaExceeded || len(remove) == 0 {
			return err
		}
		if err := p.revoke(ctx, ids[f.Pool], remove); err != nil {
			return err
		}
		return p.authorize(ctx, ids[f.Pool], add)
	}
	if err := p.revoke(ctx, ids[f.Pool], remove); err != nil {
		return err
	}
	if len(add)+len(remove) > 0 {
		p.log.InfoContext(ctx, "security group changed", "pool", f.Pool, "group", ids[f.Pool], "allowed", len(add), "removed", len(remove))
	}
	return nil
}

// PlanFirewall implements provider.FirewallGroups.
func (p *Provider) PlanFirewall(ctx context.Context, f provider.Firewall) ([]string, error) {
	n, err := p.findNetwork(ctx, f.Network)
	if err != nil {
		return nil, err
	}
	groups, err := p.groups(ctx, n.id)
	if err != nil {
		return nil, err
	}
	var lines []string
	ids := map[string]string{}
	for _, pool := range poolsOf(f) {
		group, ok := groups[pool]
		ids[pool] = awssdk.ToString(group.GroupId)
		if !ok {
			name := groupName(p.config.ClusterID, pool)
			lines = append(lines, "create security group "+name)
			ids[pool] = name // no id yet: the name is as unique
		}
	}
	add, remove, err := changes(f, groups[f.Pool], ids)
	if err != nil {
		return nil, err
	}
	for pool, group := range groups {
		ids[pool] = awssdk.ToString(group.GroupId)
	}
	pools := inverted(ids)
	for _, r := range add {
		lines = append(lines, r.describe(pools))
	}
	for _, r := range remove {
		lines = append(lines, "no longer "+r.describe(pools))
	}
	return lines, nil
}

// changes compares a pool's group with what its rules ask for.
func changes(f provider.Firewall, group types.SecurityGroup, ids map[string]string) (add, remove []rule, err error) {
	var want []rule
	for _, r := range f.Rules {
		one, err := ruleOf(r, ids)
		if err != nil {
			return nil, nil, err
		}
		want = append(want, one)
	}
	add, remove = diff(rulesOf(group.IpPermissions, awssdk.ToString(group.OwnerId)), want)
	return add, remove, nil
}

// poolsOf returns the pool of a firewall and those that its rules name, each once.
func poolsOf(f provider.Firewall) []string {
	pools := []string{f.Pool}
	for _, r := range f.Rules {
		if r.Pool != "" && !slices.Contains(pools, r.Pool) {
			pools = append(pools, r.Pool)
		}
	}
	return pools
}

// Firewalls implements provider.FirewallGroups.
func (p *Provider) Firewalls(ctx context.Context) ([]string, error) {
	all, err := p.allGroups(ctx, "")
	if err != nil {
		return nil, err
	}
	var pools []string
	for _, g := range all {
		pools = append(pools, tag(g.Tags, tagPool))
	}
	slices.Sort(pools)
	return slices.Compact(pools), nil
}

// DeleteFirewall implements provider.FirewallGroups. A pool that was moved has a group in each of its networks.
func (p *Provider) DeleteFirewall(ctx context.Context, pool string) error {
	if err := p.firewall.acquire(ctx); err != nil {
		return err
	}
	defer p.firewall.release()
	all, err := p.allGroups(ctx, "")
	if err != nil {
		return err
	}
	for _, g := range all {
		if tag(g.Tags, tagPool) != pool {
			continue
		}
		if err := p.deleteGroup(ctx, pool, awssdk.ToString(g.GroupId), all); err != nil {
			return err
		}
	}
	return nil
}

// deleteGroup deletes a group that nothing uses, with the rules of our other groups that name it: EC2 refuses to delete a
// group that a rule names.
func (p *Provider) deleteGroup(ctx context.Context, pool, id string, all []types.SecurityGroup) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	doing := "delete the security group of pool " + pool
	users, err := p.interfacesOf(ctx, id)
	if err != nil {
		return p.classify(ctx, doing, err)
	}
	if users > 0 {
		return provider.Errorf(provider.Unknown, "cannot %s: %s is still used by %d network interfaces", doing, id, users)
	}
	for _, g := range all {
		var naming []rule
		for _, r := range rulesOf(g.IpPermissions, awssdk.ToString(g.OwnerId)) {
			if r.group == id {
				naming = append(naming, r)
			}
		}
		if err := p.revoke(ctx, awssdk.ToString(g.GroupId), naming); err != nil {
			return err
		}
	}
	_, err = api.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: awssdk.String(id)})
	err = p.classify(ctx, doing, err)
	if err == nil {
		p.log.InfoContext(ctx, "security group deleted", "pool", pool, "group", id)
	}
	if provider.KindOf(err) == provider.NotFound {
		return nil
	}
	return err
}

// interfacesOf counts the network interfaces that are in a group: rules are not removed from one that is in use. The error
// is the API's own.
func (p *Provider) interfacesOf(ctx context.Context, group string) (users int, err error) {
	api, err := p.api(ctx)
	if err != nil {
		return 0, err
	}
	pages := ec2.NewDescribeNetworkInterfacesPaginator(api.ec2, &ec2.DescribeNetworkInterfacesInput{
		Filters: []types.Filter{filter("group-id", group)}, MaxResults: awssdk.Int32(pageSize),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if p.lacks(ctx, err, "the server alone says whether a security group is in use") {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		for _, n := range page.NetworkInterfaces {
			if slices.ContainsFunc(n.Groups, func(g types.GroupIdentifier) bool { return awssdk.ToString(g.GroupId) == group }) {
				users++
			}
		}
	}
	return users, nil
}
