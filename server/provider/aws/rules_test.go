package aws

import (
	"net/netip"
	"slices"
	"testing"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/server/provider"
)

func TestRuleOf(t *testing.T) {
	groups := map[string]string{"zk": "sg-1"}
	for _, test := range []struct {
		in   provider.FirewallRule
		want rule
	}{
		{provider.FirewallRule{Protocol: "tcp", First: 22, Last: 22, From: netip.MustParsePrefix("0.0.0.0/0")}, rule{protocol: "tcp", from: 22, to: 22, cidr: "0.0.0.0/0"}},
		{provider.FirewallRule{Protocol: "tcp", From: netip.MustParsePrefix("10.1.2.3/8")}, rule{protocol: "tcp", from: 0, to: 65535, cidr: "10.0.0.0/8"}},
		{provider.FirewallRule{Protocol: "udp", First: 1, Last: 9, Pool: "zk"}, rule{protocol: "udp", from: 1, to: 9, group: "sg-1"}},
		{provider.FirewallRule{Protocol: "icmp", Pool: "zk"}, rule{protocol: "icmp", from: -1, to: -1, group: "sg-1"}},
		{provider.FirewallRule{Protocol: "icmp6", From: netip.MustParsePrefix("2001:db8::/32")}, rule{protocol: "icmpv6", from: -1, to: -1, cidr: "2001:db8::/32"}},
		{provider.FirewallRule{Protocol: "all", Pool: "zk"}, rule{protocol: "-1", from: -1, to: -1, group: "sg-1"}},
	} {
		got, err := ruleOf(test.in, groups)
		if err != nil || got != test.want {
			t.Errorf("%s became %+v, %v, want %+v", test.in, got, err, test.want)
		}
		if back := rulesOf([]types.IpPermission{got.permission()}, "1"); len(back) != 1 || back[0] != got {
			t.Errorf("%+v came back as %+v", got, back)
		}
	}
	for _, bad := range []provider.FirewallRule{{Protocol: "gre", Pool: "zk"}, {Protocol: "tcp", First: 1, Last: 1}} {
		if _, err := ruleOf(bad, groups); provider.KindOf(err) != provider.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestRulesOf takes permissions apart as EC2 groups them, with what only other people's rules have.
func TestRulesOf(t *testing.T) {
	got := rulesOf([]types.IpPermission{
		{IpProtocol: awssdk.String("tcp"), FromPort: awssdk.Int32(80), ToPort: awssdk.Int32(81),
			IpRanges:         []types.IpRange{{CidrIp: awssdk.String("10.0.0.0/8")}, {CidrIp: awssdk.String("192.0.2.1/32")}},
			Ipv6Ranges:       []types.Ipv6Range{{CidrIpv6: awssdk.String("2001:DB8:0::/32")}},
			PrefixListIds:    []types.PrefixListId{{PrefixListId: awssdk.String("pl-1")}},
			UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: awssdk.String("sg-1"), UserId: awssdk.String("1")}, {GroupId: awssdk.String("sg-2"), UserId: awssdk.String("2")}}},
		{IpProtocol: awssdk.String("-1"), FromPort: awssdk.Int32(0), ToPort: awssdk.Int32(0), IpRanges: []types.IpRange{{CidrIp: awssdk.String("0.0.0.0/0")}}},
		{IpProtocol: awssdk.String("58"), FromPort: awssdk.Int32(-1), ToPort: awssdk.Int32(-1), Ipv6Ranges: []types.Ipv6Range{{CidrIpv6: awssdk.String("::/0")}}},
	}, "1")
	want := []rule{
		{protocol: "tcp", from: 80, to: 81, cidr: "10.0.0.0/8"}, {protocol: "tcp", from: 80, to: 81, cidr: "192.0.2.1/32"},
		{protocol: "tcp", from: 80, to: 81, cidr: "2001:db8::/32"},
		{protocol: "tcp", from: 80, to: 81, group: "sg-1"}, {protocol: "tcp", from: 80, to: 81, group: "sg-2", owner: "2"},
		{protocol: "tcp", from: 80, to: 81, list: "pl-1"},
		{protocol: "-1", from: -1, to: -1, cidr: "0.0.0.0/0"}, {protocol: "icmpv6", from: -1, to: -1, cidr: "::/0"},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(rule{})); d != "" {
		t.Error(d)
	}
}

// TestDiff: what is had, with what is to be added and without what is to be removed, is what is wanted; nothing else is
// touched.
func TestDiff(t *testing.T) {
	one := rapid.Custom(func(t *rapid.T) rule {
		r := rule{protocol: rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "protocol"), from: rapid.Int32Range(1, 4).Draw(t, "from")}
		r.to = r.from
		if rapid.Bool().Draw(t, "grouped") {
			r.group = rapid.SampledFrom([]string{"sg-1", "sg-2"}).Draw(t, "group")
		} else {
			r.cidr = rapid.SampledFrom([]string{"10.0.0.0/8", "::/0"}).Draw(t, "cidr")
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		have, want := rapid.SliceOfN(one, 0, 12).Draw(t, "have"), rapid.SliceOfN(one, 0, 12).Draw(t, "want")
		add, remove := diff(have, want)
		got := set(have)
		for _, r := range remove {
			if !got[r] {
				t.Fatalf("%+v is removed and was not there", r)
			}
			delete(got, r)
		}
		for _, r := range add {
			if got[r] {
				t.Fatalf("%+v is added and was there", r)
			}
			got[r] = true
		}
		if d := cmp.Diff(set(want), got, cmp.AllowUnexported(rule{})); d != "" {
			t.Fatal(d)
		}
		if again, _ := diff(have, want); !slices.Equal(add, again) {
			t.Fatalf("the order changes: %v, %v", add, again)
		}
	})
}

func TestDescribe(t *testing.T) {
	pools := map[string]string{"sg-1": "zk"}
	for _, test := range []struct {
		r    rule
		want string
	}{
		{rule{protocol: "tcp", from: 22, to: 22, cidr: "0.0.0.0/0"}, "allow tcp 22 from 0.0.0.0/0"},
		{rule{protocol: "-1", from: -1, to: -1, group: "sg-1"}, "allow all from pool zk"},
		{rule{protocol: "icmpv6", from: -1, to: -1, cidr: "::/0"}, "allow icmp6 from ::/0"},
		{rule{protocol: "tcp", from: 1, to: 9, group: "sg-9"}, "allow tcp 1-9 from sg-9"},
		{rule{protocol: "tcp", from: 1, to: 9, list: "pl-9"}, "allow tcp 1-9 from pl-9"},
	} {
		if got := test.r.describe(pools); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
