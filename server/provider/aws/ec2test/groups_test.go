package ec2test_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/server/provider/aws/ec2test"
)

func tcp(port int32, cidr string) types.IpPermission {
	return types.IpPermission{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(port), ToPort: aws.Int32(port), IpRanges: []types.IpRange{{CidrIp: aws.String(cidr)}}}
}

func from(group string) types.IpPermission {
	return types.IpPermission{IpProtocol: aws.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: aws.String(group)}}}
}

func (c *cloud) allow(ctx context.Context, group string, p ...types.IpPermission) ([]types.SecurityGroupRule, error) {
	out, err := c.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: aws.String(group), IpPermissions: p})
	if err != nil {
		return nil, err
	}
	return out.SecurityGroupRules, nil
}

func TestSecurityGroups(t *testing.T) {
	c := start(t, ec2test.Config{})
	ctx := t.Context()
	vpc := c.vpc(t, "default")
	web, db := c.group(t, "web", vpc), c.group(t, "db", vpc)
	rules, err := c.allow(ctx, web, tcp(22, "10.0.0.0/8"), tcp(443, "0.0.0.0/0"),
		types.IpPermission{IpProtocol: aws.String("icmpv6"), FromPort: aws.Int32(-1), ToPort: aws.Int32(-1), Ipv6Ranges: []types.Ipv6Range{{CidrIpv6: aws.String("::/0")}}})
	if err != nil || len(rules) != 3 {
		t.Fatalf("rules %v, %v", rules, err)
	}
	if _, err := c.allow(ctx, db, from(web), from(db)); err != nil {
		t.Error(err)
	}
	truth := func(id string) []string {
		for _, g := range c.Groups() {
			if g.ID == id {
				return g.Rules
			}
		}
		return nil
	}
	want := []string{"in icmpv6 -1--1 ::/0", "in tcp 22-22 10.0.0.0/8", "in tcp 443-443 0.0.0.0/0", "out -1 0.0.0.0/0"}
	if diff := cmp.Diff(want, truth(web)); diff != "" {
		t.Error(diff)
	}
	for name, tt := range map[string]struct {
		group string
		p     types.IpPermission
		want  string
	}{
		"duplicate":   {web, tcp(22, "10.0.0.0/8"), "InvalidPermission.Duplicate"},
		"host bits":   {web, tcp(22, "10.0.0.1/8"), "InvalidParameterValue"},
		"no CIDR":     {web, tcp(22, "everywhere"), "InvalidParameterValue"},
		"port":        {web, tcp(70000, "10.0.0.0/8"), "InvalidParameterValue"},
		"protocol":    {web, types.IpPermission{IpProtocol: aws.String("all"), IpRanges: []types.IpRange{{CidrIp: aws.String("10.0.0.0/8")}}}, "InvalidParameterValue"},
		"no ports":    {web, types.IpPermission{IpProtocol: aws.String("udp"), IpRanges: []types.IpRange{{CidrIp: aws.String("10.0.0.0/8")}}}, "InvalidParameterValue"},
		"absent peer": {web, from("sg-00000000000000000"), "InvalidGroup.NotFound"},
		"absent":      {"sg-00000000000000000", tcp(22, "10.0.0.0/8"), "InvalidGroup.NotFound"},
		"description": {web, types.IpPermission{IpProtocol: aws.String("-1"), IpRanges: []types.IpRange{{CidrIp: aws.String("10.0.0.0/8"), Description: aws.String("it's")}}}, "InvalidParameterValue"},
	} {
		if _, err := c.allow(ctx, tt.group, tt.p); code(err) != tt.want {
			t.Errorf("%s: %v, not %s", name, err, tt.want)
		}
	}
	if diff := cmp.Diff(want, truth(web)); diff != "" {
		t.Errorf("refused calls have acted: %s", diff)
	}
}

func TestSecurityGroupDependencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, ec2test.Config{ShutdownTime: time.Minute})
		ctx := t.Context()
		vpc := c.vpc(t, "default")
		web, db := c.group(t, "web", vpc), c.group(t, "db", vpc)
		if _, err := c.allow(ctx, db, from(web)); err != nil {
			t.Fatal(err)
		}
		remove := func(id string) error {
			_, err := c.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: aws.String(id)})
			return err
		}
		wantCode(t, remove(web), "DependencyViolation")
		_, err := c.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: aws.String(db), IpPermissions: []types.IpPermission{tcp(22, "10.0.0.0/8")}})
		wantCode(t, err, "InvalidPermission.NotFound")
		if _, err := c.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: aws.String(db), IpPermissions: []types.IpPermission{from(web)}}); err != nil {
			t.Fatal(err)
		}
		in := c.wish(t, "m-1")
		in.SecurityGroupIds = []string{web}
		id := *c.run(t, in).InstanceId
		wantCode(t, remove(web), "DependencyViolation")
		if _, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
			t.Fatal(err)
		}
		wantCode(t, remove(web), "DependencyViolation")
		time.Sleep(time.Minute)
		wantCode(t, remove(web), "")
		wantCode(t, remove(web), "InvalidGroup.NotFound")
		_, err = c.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("DB"), Description: aws.String("x"), VpcId: aws.String(vpc)})
		wantCode(t, err, "InvalidGroup.Duplicate")
		_, err = c.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("default"), Description: aws.String("x")})
		wantCode(t, err, "InvalidGroup.Reserved")
		_, err = c.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("sg-x"), Description: aws.String("x")})
		wantCode(t, err, "InvalidParameterValue")
	})
}

func TestRulesByID(t *testing.T) {
	c := start(t, ec2test.Config{})
	ctx := t.Context()
	web := c.group(t, "web", c.vpc(t, "other"))
	rules, err := c.allow(ctx, web, tcp(22, "10.0.0.0/8"), tcp(80, "10.0.0.0/8"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.ec2.DescribeSecurityGroupRules(ctx, &ec2.DescribeSecurityGroupRulesInput{Filters: filters("group-id", web), MaxResults: aws.Int32(5)})
	if err != nil || len(out.SecurityGroupRules) != 3 {
		t.Fatalf("rules %v, %v", out, err)
	}
	if _, err := c.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: aws.String(web), SecurityGroupRuleIds: []string{*rules[0].SecurityGroupRuleId}}); err != nil {
		t.Fatal(err)
	}
	groups, err := c.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{web}})
	if err != nil || len(groups.SecurityGroups[0].IpPermissions) != 1 || *groups.SecurityGroups[0].IpPermissions[0].FromPort != 80 {
		t.Errorf("groups %+v, %v", groups, err)
	}
	_, err = c.ec2.RevokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: aws.String(web), SecurityGroupRuleIds: []string{*rules[1].SecurityGroupRuleId}})
	wantCode(t, err, "InvalidSecurityGroupRuleId.NotFound")
	egress := types.IpPermission{IpProtocol: aws.String("-1"), IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}}}
	if _, err := c.ec2.RevokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: aws.String(web), IpPermissions: []types.IpPermission{egress}}); err != nil {
		t.Error(err)
	}
	if _, err := c.ec2.AuthorizeSecurityGroupEgress(ctx, &ec2.AuthorizeSecurityGroupEgressInput{GroupId: aws.String(web), IpPermissions: []types.IpPermission{egress}}); err != nil {
		t.Error(err)
	}
}
