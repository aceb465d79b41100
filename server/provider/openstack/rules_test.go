package openstack

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/security/rules"

	"github.com/provisionr/provisionr/server/provider"
)

func from(protocol string, first, last uint16, prefix string) provider.FirewallRule {
	return provider.FirewallRule{Protocol: protocol, First: first, Last: last, From: netip.MustParsePrefix(prefix)}
}

func TestWanted(t *testing.T) {
	ids := func(pool string) string { return "id-of-" + pool }
	for _, test := range []struct {
		name string
		rule provider.FirewallRule
		want []rule
	}{
		{"any IPv4", from("tcp", 22, 22, "0.0.0.0/0"), []rule{{"ingress", "IPv4", "tcp", 22, 22, "", ""}}},
		{"host bits", from("udp", 1, 9, "10.1.2.3/8"), []rule{{"ingress", "IPv4", "udp", 1, 9, "10.0.0.0/8", ""}}},
		{"IPv6", from("tcp", 22, 22, "2001:db8::/32"), []rule{{"ingress", "IPv6", "tcp", 22, 22, "2001:db8::/32", ""}}},
		{"all", from("all", 0, 0, "10.0.0.0/8"), []rule{{"ingress", "IPv4", "", 0, 0, "10.0.0.0/8", ""}}},
		{"icmp", from("icmp", 0, 0, "10.0.0.0/8"), []rule{{"ingress", "IPv4", "icmp", 0, 0, "10.0.0.0/8", ""}}},
		{"icmp of the other family", from("icmp6", 0, 0, "10.0.0.0/8"), nil},
		{"icmp6", from("icmp6", 0, 0, "::/0"), []rule{{"ingress", "IPv6", "ipv6-icmp", 0, 0, "", ""}}},
		{"a pool, by both families", provider.FirewallRule{Protocol: "tcp", First: 1, Last: 2, Pool: "p"}, []rule{
			{"ingress", "IPv4", "tcp", 1, 2, "", "id-of-p"}, {"ingress", "IPv6", "tcp", 1, 2, "", "id-of-p"},
		}},
		{"icmp from a pool", provider.FirewallRule{Protocol: "icmp", Pool: "p"}, []rule{{"ingress", "IPv4", "icmp", 0, 0, "", "id-of-p"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := wanted([]provider.FirewallRule{test.rule, test.rule}, ids)
			want := append(append([]rule(nil), outbound...), test.want...)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(rule{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDifference(t *testing.T) {
	there := []rules.SecGroupRule{
		{ID: "out4", Direction: "egress", EtherType: "IPv4"},
		{ID: "out6", Direction: "egress", EtherType: "IPv6"},
		{ID: "ssh", Direction: "ingress", EtherType: "IPv4", Protocol: "tcp", PortRangeMin: 22, PortRangeMax: 22, RemoteIPPrefix: "0.0.0.0/0"},
		{ID: "ping6", Direction: "ingress", EtherType: "IPv6", Protocol: "icmpv6"},
		{ID: "old", Direction: "ingress", EtherType: "IPv4", Protocol: "tcp", PortRangeMin: 80, PortRangeMax: 80},
		{ID: "twice", Direction: "ingress", EtherType: "IPv4", Protocol: "6", PortRangeMin: 22, PortRangeMax: 22},
		{ID: "group", Direction: "ingress", EtherType: "IPv4", RemoteGroupID: "g2"},
	}
	want := wanted([]provider.FirewallRule{from("tcp", 22, 22, "0.0.0.0/0"), from("icmp6", 0, 0, "::/0"), from("udp", 53, 53, "10.0.0.0/8")}, nil)
	missing, extra := difference(want, there)
	if diff := cmp.Diff([]rule{{"ingress", "IPv4", "udp", 53, 53, "10.0.0.0/8", ""}}, missing, cmp.AllowUnexported(rule{})); diff != "" {
		t.Error("missing:", diff)
	}
	var ids []string
	for _, r := range extra {
		ids = append(ids, r.ID)
	}
	if diff := cmp.Diff([]string{"old", "twice", "group"}, ids); diff != "" {
		t.Error("extra:", diff)
	}
	if missing, extra := difference(outbound, nil); len(missing) != 2 || len(extra) != 0 {
		t.Errorf("a group whose outbound rules were deleted gets %v", missing)
	}
}

func TestText(t *testing.T) {
	pools := func(id string) string { return map[string]string{"g": "web"}[id] }
	for want, r := range map[string]rule{
		"allow tcp 22 from 0.0.0.0/0":       {"ingress", "IPv4", "tcp", 22, 22, "", ""},
		"allow udp 1-9 from 10.0.0.0/8":     {"ingress", "IPv4", "udp", 1, 9, "10.0.0.0/8", ""},
		"allow all from pool web":           {"ingress", "IPv6", "", 0, 0, "", "g"},
		"allow icmp6 from ::/0":             {"ingress", "IPv6", "ipv6-icmp", 0, 0, "", ""},
		"allow outbound IPv4":               {"egress", "IPv4", "", 0, 0, "", ""},
		"allow outbound IPv4 tcp 1.0.0.0/8": {"egress", "IPv4", "tcp", 0, 0, "1.0.0.0/8", ""},
	} {
		if got := r.text(pools); got != want {
			t.Errorf("%+v is %q, want %q", r, got, want)
		}
	}
}
