package providertest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/server/provider"
)

// peer is a second pool, whose machines the rules of the first name.
const peer = "peer"

func ruleOf(protocol string, port uint16, from string) provider.FirewallRule {
	return provider.FirewallRule{Protocol: protocol, First: port, Last: port, From: netip.MustParsePrefix(from)}
}

func fromPool(protocol string, port uint16, pool string) provider.FirewallRule {
	return provider.FirewallRule{Protocol: protocol, First: port, Last: port, Pool: pool}
}

func (r *run) firewall(t *testing.T, p provider.Provider, pool string, rules ...provider.FirewallRule) provider.Firewall {
	t.Helper()
	return provider.Firewall{ClusterID: r.cluster, ClusterName: r.cluster, Pool: pool, Network: r.networkOf(t, p), Rules: rules}
}

// groups returns the provider's groups; those that a failed test leaves are deleted.
func (r *run) groups(t *testing.T, p provider.Provider) provider.FirewallGroups {
	t.Helper()
	groups, ok := p.(provider.FirewallGroups)
	if !ok {
		t.Fatal("the provider has no firewall groups, and Config.Without does not say why")
	}
	return groups
}

func (r *run) ensure(t *testing.T, groups provider.FirewallGroups, f provider.Firewall) {
	t.Helper()
	if err := groups.EnsureFirewall(t.Context(), f); err != nil {
		t.Fatalf("EnsureFirewall: %v", err)
	}
}

// deleteGroup deletes a group that no machine uses, or will not soon.
func (r *run) deleteGroup(t *testing.T, groups provider.FirewallGroups, pool string) {
	t.Helper()
	r.eventually(t, "the group of "+pool+" can be deleted", func() (bool, any) {
		err := groups.DeleteFirewall(t.Context(), pool)
		return err == nil, err
	})
}

func texts(rules []provider.FirewallRule) []string {
	var lines []string
	for _, rule := range rules {
		lines = append(lines, rule.String())
	}
	slices.Sort(lines)
	return lines
}

// has waits until the cloud has just these rules for the pool.
func (r *run) has(t *testing.T, pool string, wanted ...provider.FirewallRule) {
	t.Helper()
	r.eventually(t, "the group of "+pool+" has its rules", func() (bool, any) {
		rules, ok := r.Cloud.Rules(t, r.cluster, pool)
		return ok && slices.Equal(texts(rules), texts(wanted)), strings.Join(texts(rules), "; ")
	})
}

func (r *run) hasGroups(t *testing.T, groups provider.FirewallGroups, wanted ...string) {
	t.Helper()
	r.eventually(t, "there are just the groups of "+strings.Join(wanted, ", "), func() (bool, any) {
		pools, err := groups.Firewalls(t.Context())
		if err != nil {
			t.Fatalf("Firewalls: %v", err)
		}
		slices.Sort(pools)
		return slices.Equal(pools, wanted), pools
	})
}

// firewallConverges goes from nothing to many rules to others, and back from what a person changed by hand.
func (r *run) firewallConverges(t *testing.T, p provider.Provider) {
	groups := r.groups(t, p)
	r.hasGroups(t, groups)
	many := []provider.FirewallRule{
		ruleOf("tcp", 22, "0.0.0.0/0"), ruleOf("tcp", 443, "10.0.0.0/8"), ruleOf("tcp", 443, "192.168.0.0/16"),
		{Protocol: "tcp", First: 8000, Last: 8100, From: netip.MustParsePrefix("10.0.0.0/8")},
		ruleOf("udp", 53, "10.0.0.0/8"), ruleOf("icmp", 0, "0.0.0.0/0"),
		fromPool("tcp", 2181, pool), fromPool("tcp", 2181, peer), fromPool("udp", 4789, peer), fromPool("all", 0, pool),
	}
	for range 2 {
		r.ensure(t, groups, r.firewall(t, p, pool, many...))
		r.has(t, pool, many...)
	}
	// The group that a rule names is made, without rules of its own.
	r.has(t, peer)
	r.hasGroups(t, groups, peer, pool)
	others := []provider.FirewallRule{ruleOf("tcp", 22, "10.1.0.0/16"), ruleOf("tcp", 443, "10.0.0.0/8"), fromPool("tcp", 2181, peer)}
	r.ensure(t, groups, r.firewall(t, p, pool, others...))
	r.has(t, pool, others...)
	byHand := ruleOf("tcp", 3389, "0.0.0.0/0")
	r.Cloud.AddRule(t, r.cluster, pool, byHand)
	r.has(t, pool, append(slices.Clone(others), byHand)...)
	r.eventually(t, "what was added by hand is removed", func() (bool, any) {
		r.ensure(t, r.groups(t, r.New(t, r.cluster)), r.firewall(t, p, pool, others...))
		rules, _ := r.Cloud.Rules(t, r.cluster, pool)
		return slices.Equal(texts(rules), texts(others)), texts(rules)
	})
	// Both ways: the peers may be reached by the pool as well.
	r.ensure(t, groups, r.firewall(t, p, peer, fromPool("tcp", 9000, pool)))
	r.has(t, peer, fromPool("tcp", 9000, pool))
	r.has(t, pool, others...)
	r.ensure(t, groups, r.firewall(t, p, pool))
	r.has(t, pool)

	other := r.groups(t, r.New(t, r.cluster+"x"))
	r.hasGroups(t, other)
	if err := other.DeleteFirewall(t.Context(), peer); err != nil {
		t.Errorf("DeleteFirewall by another cluster: %v", err)
	}
	r.has(t, peer, fromPool("tcp", 9000, pool))
	r.deleteGroup(t, groups, pool)
	r.deleteGroup(t, groups, peer)
	r.hasGroups(t, groups)
}

// firewallPlan says what EnsureFirewall does and changes nothing.
func (r *run) firewallPlan(t *testing.T, p provider.Provider) {
	groups := r.groups(t, p)
	kept, removed, added := ruleOf("tcp", 22, "0.0.0.0/0"), fromPool("tcp", 2181, pool), ruleOf("udp", 53, "10.0.0.0/8")
	plan := func(rules ...provider.FirewallRule) []string {
		t.Helper()
		lines, err := groups.PlanFirewall(t.Context(), r.firewall(t, p, pool, rules...))
		if err != nil {
			t.Fatalf("PlanFirewall: %v", err)
		}
		return lines
	}
	says := func(lines []string, rule provider.FirewallRule) (added, removed bool) {
		for _, line := range lines {
			added = added || line == rule.String()
			removed = removed || line != rule.String() && strings.Contains(line, strings.TrimPrefix(rule.String(), "allow "))
		}
		return added, removed
	}
	lines := plan(kept, removed)
	for _, rule := range []provider.FirewallRule{kept, removed} {
		if added, _ := says(lines, rule); !added {
			t.Errorf("the plan of a new group does not say %q: %q", rule, lines)
		}
	}
	if _, ok := r.Cloud.Rules(t, r.cluster, pool); ok {
		t.Error("PlanFirewall made the group")
	}
	r.ensure(t, groups, r.firewall(t, p, pool, kept, removed))
	r.has(t, pool, kept, removed)
	r.eventually(t, "there is nothing more to do", func() (bool, any) {
		lines := plan(removed, kept)
		return len(lines) == 0, lines
	})
	lines = plan(kept, added)
	for _, check := range []struct {
		rule           provider.FirewallRule
		added, removed bool
	}{{kept, false, false}, {removed, false, true}, {added, true, false}} {
		if added, removed := says(lines, check.rule); added != check.added || removed != check.removed {
			t.Errorf("%q: added %t, removed %t in the plan %q", check.rule, added, removed, lines)
		}
	}
	if len(lines) != 2 {
		t.Errorf("two changes are planned as %q", lines)
	}
	r.has(t, pool, kept, removed)
	r.deleteGroup(t, groups, pool)
}

// firewallDelete deletes groups that name one another, but none that a machine uses.
func (r *run) firewallDelete(t *testing.T, p provider.Provider) {
	groups := r.groups(t, p)
	if err := groups.DeleteFirewall(t.Context(), pool); err != nil {
		t.Errorf("DeleteFirewall of an absent group: %v", err)
	}
	r.ensure(t, groups, r.firewall(t, p, pool, fromPool("tcp", 1, peer), fromPool("tcp", 2, pool)))
	r.ensure(t, groups, r.firewall(t, p, peer, fromPool("tcp", 3, pool), ruleOf("tcp", 4, "0.0.0.0/0")))
	request := r.request(t, p)
	i := r.launch(t, p, request)
	r.only(t, p, i)
	wants(t, "DeleteFirewall of a group that a machine uses", groups.DeleteFirewall(t.Context(), pool), provider.Unknown)
	if _, ok := r.Cloud.Rules(t, r.cluster, pool); !ok {
		t.Error("a group that a machine uses was deleted")
	}
	r.terminate(t, p, i)
	r.deleteGroup(t, groups, pool)
	r.hasGroups(t, groups, peer)
	r.has(t, peer, ruleOf("tcp", 4, "0.0.0.0/0"))
	r.deleteGroup(t, groups, peer)
	r.hasGroups(t, groups)
}

// firewallLost loses the response of a change, which the next call completes.
func (r *run) firewallLost(t *testing.T, p provider.Provider) {
	groups := r.groups(t, p)
	rules := []provider.FirewallRule{ruleOf("tcp", 22, "0.0.0.0/0"), fromPool("tcp", 2181, peer)}
	r.Cloud.LoseResponse(t, FirewallOp)
	err := groups.EnsureFirewall(t.Context(), r.firewall(t, p, pool, rules...))
	wants(t, "EnsureFirewall without a response", err, provider.Unknown)
	r.ensure(t, r.groups(t, r.New(t, r.cluster)), r.firewall(t, p, pool, rules...))
	r.has(t, pool, rules...)
	r.deleteGroup(t, groups, pool)
	r.deleteGroup(t, groups, peer)
}
