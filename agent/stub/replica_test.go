package stub

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/dnsserver/zone"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func stateOf(members ...*agentv1.Member) *desired.State {
	return &desired.State{
		Machine: &agentv1.MachineComponent{Pool: "web", Zones: []string{"88.10.in-addr.arpa", "p.internal", "0.0.d.f.ip6.arpa"}},
		Pool:    &agentv1.PoolComponent{Name: "web", Aliases: []string{"www"}},
		Members: map[string][]*agentv1.Member{"web": members},
	}
}

// TestSharedNamesAreBounded: a pool's names have as many addresses as the servers give, those of the machines with the
// lowest ranks, and fit the smallest answer.
func TestSharedNamesAreBounded(t *testing.T) {
	var members []*agentv1.Member
	for i := range uint32(60) {
		name := fmt.Sprint("web-", i+1)
		members = append(members, &agentv1.Member{
			Name: name, Fqdn: name + ".p.internal", Index: i + 1, Address: fmt.Sprint("10.88.1.", i+1),
			FurtherAddresses: []string{fmt.Sprint("fd00::", i+1)}, Ready: i%6 != 0,
		})
	}
	s, addr := start(t, nil)
	if err := s.Set(stateOf(members...)); err != nil {
		t.Fatal(err)
	}
	ready := slices.DeleteFunc(slices.Clone(members), func(m *agentv1.Member) bool { return !m.Ready })
	slices.SortFunc(ready, func(a, b *agentv1.Member) int { return cmp.Compare(zone.Rank(a.Name), zone.Rank(b.Name)) })
	for _, name := range []string{"web.p.internal", "www.p.internal"} {
		for typ, count := range map[uint16]int{dns.TypeA: zone.MaxShared, dns.TypeAAAA: 15} {
			r := ask(t, "udp", addr, name, typ)
			var got, want []string
			for _, rr := range r.Answer {
				got = append(got, dns.Field(rr, 1))
			}
			for _, m := range ready[:count] {
				want = append(want, map[uint16]string{dns.TypeA: m.Address, dns.TypeAAAA: m.FurtherAddresses[0]}[typ])
			}
			slices.Sort(got)
			slices.Sort(want)
			if r.Truncated || !slices.Equal(got, want) {
				t.Errorf("%s has %v, want %v", name, got, want)
			}
		}
	}
}

// TestFurtherAddresses: a machine with addresses of two families has its names in both, and each points back, without any
// server.
func TestFurtherAddresses(t *testing.T) {
	s, addr := start(t, nil)
	err := s.Set(stateOf(
		&agentv1.Member{Name: "web-1", Fqdn: "web-1.p.internal", Index: 1, Address: "10.88.0.2", FurtherAddresses: []string{"fd00::2", "10.88.0.2", "10.88.0.3"}, Ready: true},
		&agentv1.Member{Name: "web-2", Fqdn: "web-2.p.internal", Index: 2, Address: "10.88.0.4", FurtherAddresses: []string{"2001:db8::4"}},
	))
	if err != nil {
		t.Fatal(err)
	}
	back := func(address string) string { return zone.ReverseName(netip.MustParseAddr(address)) }
	for _, tt := range []struct {
		ask  string
		typ  uint16
		want []string
	}{
		{"web-1.p.internal", dns.TypeA, []string{"10.88.0.2", "10.88.0.3"}},
		{"web-1.p.internal", dns.TypeAAAA, []string{"fd00::2"}},
		{"web-2.p.internal", dns.TypeAAAA, []string{"2001:db8::4"}},
		{"web.p.internal", dns.TypeAAAA, []string{"fd00::2"}},
		{"www.p.internal", dns.TypeAAAA, []string{"fd00::2"}},
		{back("fd00::2"), dns.TypePTR, []string{"web-1.p.internal."}},
		{back("10.88.0.3"), dns.TypePTR, []string{"web-1.p.internal."}},
		{back("2001:db8::4"), dns.TypePTR, []string{"web-2.p.internal."}},
	} {
		var got []string
		for _, rr := range ask(t, "udp", addr, tt.ask, tt.typ).Answer {
			got = append(got, dns.Field(rr, 1))
		}
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("%s has %v, want %v", tt.ask, got, tt.want)
		}
	}
}
