package aws

import (
	"context"
	"slices"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/provisionr/provisionr/server/provider"
)

// allGroups returns the security groups of the cluster's pools in a network, or in all for "".
func (p *Provider) allGroups(ctx context.Context, vpc string) ([]types.SecurityGroup, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	in := &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{p.own()}, MaxResults: awssdk.Int32(pageSize)}
	if vpc != "" {
		in.Filters = append(in.Filters, filter("vpc-id", vpc))
	}
	var all []types.SecurityGroup
	pages := ec2.NewDescribeSecurityGroupsPaginator(api.ec2, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, p.classify(ctx, "list security groups", err)
		}
		for _, g := range page.SecurityGroups {
			if tag(g.Tags, tagPool) != "" && p.belongs(g.Tags, "") && (vpc == "" || awssdk.ToString(g.VpcId) == vpc) {
				all = append(all, g)
			}
		}
	}
	return all, nil
}

// groups returns the groups of the pools in a network.
func (p *Provider) groups(ctx context.Context, vpc string) (map[string]types.SecurityGroup, error) {
	all, err := p.allGroups(ctx, vpc)
	if err != nil {
		return nil, err
	}
	byPool := map[string]types.SecurityGroup{}
	for _, g := range all {
		byPool[tag(g.Tags, tagPool)] = g
	}
	return byPool, nil
}

// groupOf returns the id of a pool's group, "" if it has none yet.
func (p *Provider) groupOf(ctx context.Context, vpc, pool string) (string, error) {
	if pool == "" {
		return "", nil
	}
	groups, err := p.groups(ctx, vpc)
	return awssdk.ToString(groups[pool].GroupId), err
}

// createGroup makes the group of a pool, which lets nobody in and everything out. One that exists already, as reads lag, is
// taken if it is ours.
func (p *Provider) createGroup(ctx context.Context, n network, pool string) (types.SecurityGroup, error) {
	api, err := p.api(ctx)
	if err != nil {
		return types.SecurityGroup{}, err
	}
	name := groupName(p.config.ClusterID, pool)
	out, err := api.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: awssdk.String(name), Description: awssdk.String("Machines of pool " + pool), VpcId: awssdk.String(n.id),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSecurityGroup, Tags: tagsOf(map[string]string{
			tagCluster: p.config.ClusterID, tagPool: pool, tagName: name,
		})}},
	})
	if err == nil {
		p.log.InfoContext(ctx, "security group created", "pool", pool, "group", awssdk.ToString(out.GroupId))
		group := types.SecurityGroup{GroupId: out.GroupId, GroupName: awssdk.String(name), VpcId: awssdk.String(n.id), Tags: out.Tags}
		group.IpPermissionsEgress = permissions(egress(n)) // what EC2 makes a new group with
		return group, nil
	}
	if !hasCode(err, "InvalidGroup.Duplicate") {
		return types.SecurityGroup{}, p.classify(ctx, "create security group "+name, err)
	}
	found, err := api.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{
		Filters: []types.Filter{filter("vpc-id", n.id), filter("group-name", escaped(name))},
	})
	if err != nil {
		return types.SecurityGroup{}, p.classify(ctx, "find security group "+name, err)
	}
	for _, g := range found.SecurityGroups {
		switch {
		case awssdk.ToString(g.GroupName) != name || awssdk.ToString(g.VpcId) != n.id:
			continue
		case !p.belongs(g.Tags, "") || tag(g.Tags, tagPool) != pool:
			return types.SecurityGroup{}, provider.Errorf(provider.Invalid, "there is a security group %s that does not have this cluster's tags: delete or rename it", name)
		}
		return g, nil
	}
	return types.SecurityGroup{}, provider.Errorf(provider.Unknown, "security group %s was created a moment ago and is not shown yet", name)
}

// egress is what every group lets out: everything.
func egress(n network) []rule {
	all := []rule{{protocol: "-1", from: noPort, to: noPort, cidr: "0.0.0.0/0"}}
	if n.ipv6 {
		all = append(all, rule{protocol: "-1", from: noPort, to: noPort, cidr: "::/0"})
	}
	return all
}

// ensureEgress puts back what somebody has removed, or what the network had no IPv6 for when the group was made.
func (p *Provider) ensureEgress(ctx context.Context, n network, group types.SecurityGroup) error {
	add, _ := diff(rulesOf(group.IpPermissionsEgress, awssdk.ToString(group.OwnerId)), egress(n))
	if len(add) == 0 {
		return nil
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	return p.each(ctx, "let out what group "+awssdk.ToString(group.GroupId)+" sends", add, func(rules []rule) error {
		_, err := api.ec2.AuthorizeSecurityGroupEgress(ctx, &ec2.AuthorizeSecurityGroupEgressInput{GroupId: group.GroupId, IpPermissions: permissions(rules)})
		if p.lacks(ctx, err, "groups let out what the server lets out") {
			return nil
		}
		return err
	}, "InvalidPermission.Duplicate")
}

// authorize adds rules to a group; those that it has already are no error.
func (p *Provider) authorize(ctx context.Context, group string, rules []rule) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	err = p.each(ctx, "allow what group "+group+" is to let in", rules, func(rules []rule) error {
		_, err := api.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: awssdk.String(group), IpPermissions: permissions(rules)})
		return err
	}, "InvalidPermission.Duplicate")
	if provider.KindOf(err) == provider.NotFound {
		// A group that was made a moment ago is not seen everywhere yet.
		return provider.Errorf(provider.Unknown, "%w", err)
	}
	return err
}

// revoke removes rules from a group; those that it does not have are no error, nor is a group that is gone.
func (p *Provider) revoke(ctx context.Context, group string, rules []rule) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	return p.each(ctx, "remove rules from group "+group, rules, func(rules []rule) error {
		_, err := api.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: awssdk.String(group), IpPermissions: permissions(rules)})
		return err
	}, "InvalidPermission.NotFound", "InvalidGroup.NotFound")
}

// rulesPerCall bounds the rules of one call, far below the 1000 that a group can have at all.
const rulesPerCall = 200

// each calls change for all rules together. EC2 refuses a call as a whole for one rule that is there already, or is not:
// then each rule has its own call, and the codes of such refusals are no errors.
func (p *Provider) each(ctx context.Context, doing string, rules []rule, change func([]rule) error, harmless ...string) error {
	for some := range slices.Chunk(rules, rulesPerCall) {
		err := change(some)
		if len(some) > 1 && hasCode(err, harmless...) {
			for _, r := range some {
				if err = change([]rule{r}); err != nil && !hasCode(err, harmless...) {
					break
				}
			}
		}
		if err != nil && !hasCode(err, harmless...) {
			return p.classify(ctx, doing, err)
		}
	}
	return nil
}
