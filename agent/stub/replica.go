package stub

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/dnsserver/zone"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// replicaTTL is the TTL of what the stub answers itself, in seconds: asking again costs nothing.
const replicaTTL = 5

// replica makes a partial zone for each zone of the cluster, with what the desired state knows of it.
func replica(state *desired.State) ([]*zone.Zone, error) {
	configs := map[string]*zone.Config{}
	for _, origin := range state.Machine.GetZones() {
		configs[origin] = &zone.Config{Origin: origin, TTL: replicaTTL, Partial: true}
	}
	add := func(r zone.Record) {
		c := configs[originOf(configs, r.Name)]
		if c == nil && r.Type == zone.TypePTR {
			// The range is part of somebody else's reverse zone (RFC 2317): of that, only this name is ours.
			c = &zone.Config{Origin: r.Name, TTL: replicaTTL, Partial: true}
			configs[r.Name] = c
		}
		if c != nil {
			c.Records = append(c.Records, r)
		}
	}
	// Pools in order, so that an address that two members seem to have always points to the same one.
	pointers := map[netip.Addr]bool{}
	for _, pool := range slices.Sorted(maps.Keys(state.Members)) {
		for _, m := range state.Members[pool] {
			for _, addr := range addresses(m) {
				add(zone.Address(m.GetFqdn(), addr))
				if pointers[addr] {
					continue
				}
				pointers[addr] = true
				r, err := zone.Named(strings.TrimSuffix(zone.ReverseName(addr), "."), zone.TypePTR, m.GetFqdn())
				if err != nil {
					return nil, err
				}
				add(r)
			}
		}
		ready := readyOf(state.Members[pool])
		for _, name := range aliases(state, pool, ready) {
			for _, r := range zone.Shared(name, func(yield func([]netip.Addr) bool) {
				for _, m := range ready {
					if !yield(addresses(m)) {
						return
					}
				}
			}) {
				add(r)
			}
		}
	}
	zones := make([]*zone.Zone, 0, len(configs))
	for _, origin := range slices.Sorted(maps.Keys(configs)) {
		c := configs[origin]
		c.Records = fit(c.Records)
		z, err := zone.Build(*c)
		if err != nil {
			return nil, err
		}
		zones = append(zones, z)
	}
	return zones, nil
}

// addresses returns those of a member, each once.
func addresses(m *agentv1.Member) []netip.Addr {
	var addrs []netip.Addr
	for _, text := range slices.Concat([]string{m.GetAddress()}, m.GetFurtherAddresses()) {
		if addr, err := netip.ParseAddr(text); err == nil && !slices.Contains(addrs, addr.Unmap()) {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

// readyOf returns the ready ones of a pool's members in order of rank, as the servers have them.
func readyOf(members []*agentv1.Member) []*agentv1.Member {
	ready := slices.DeleteFunc(slices.Clone(members), func(m *agentv1.Member) bool { return !m.GetReady() })
	slices.SortFunc(ready, func(a, b *agentv1.Member) int {
		return cmp.Or(cmp.Compare(zone.Rank(a.GetName()), zone.Rank(b.GetName())), cmp.Compare(a.GetName(), b.GetName()))
	})
	return ready
}

// aliases returns the names that the ready members of a pool share. Those beside the pool's own name are known for the
// machine's own pool only; the servers know the others.
func aliases(state *desired.State, pool string, ready []*agentv1.Member) []string {
	if len(ready) == 0 {
		return nil
	}
	_, domain, ok := strings.Cut(ready[0].GetFqdn(), ".")
	if !ok {
		return nil
	}
	names := []string{pool + "." + domain}
	if pool == state.Machine.GetPool() {
		for _, alias := range state.Pool.GetAliases() {
			names = append(names, alias+"."+domain)
		}
	}
	return names
}

// fit drops the addresses of a name beyond what an answer can hold, as the servers do.
func fit(records []zone.Record) []zone.Record {
	held := map[string]int{}
	return slices.DeleteFunc(records, func(r zone.Record) bool {
		held[r.Name]++
		return held[r.Name] > zone.MaxAddresses
	})
}

// originOf returns the longest origin that a name lies in.
func originOf(configs map[string]*zone.Config, name string) string {
	for origin := name; origin != ""; {
		if configs[origin] != nil {
			return origin
		}
		_, origin, _ = strings.Cut(origin, ".")
	}
	return ""
}
