package reconcile

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

const (
	sshPort = 22
	// canaryPort is where the listener of the deny proof is: no rule allows it, whatever ranges say.
	canaryPort = 7447
)

var everywhere = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// FirewallOf compiles what a provider is to let through to the machines of a pool: what their own firewall lets in as well,
// but for what the network needs below the level of connections. A pool without our firewall is open. Equal states give
// equal results.
func FirewallOf(s *state.Snapshot, pool *provisionrv1.Pool) provider.Firewall {
	network := s.NetworkOf(pool)
	c := firewallCompiler{
		s: s, pool: pool, network: network, seen: map[provider.FirewallRule]bool{},
		out: provider.Firewall{
			ClusterID: s.Cluster().GetId(), ClusterName: s.Cluster().GetName(), Pool: pool.GetMetadata().GetName(), Network: network,
		},
	}
	spec := pool.GetSpec().GetFirewall()
	if spec.GetDisabled() {
		for _, from := range everywhere {
			c.add(provider.FirewallRule{Protocol: "all", From: from})
		}
		return c.out
	}
	c.add(provider.FirewallRule{Protocol: "icmp", From: everywhere[0]})
	c.add(provider.FirewallRule{Protocol: "icmp6", From: everywhere[1]})
	from := spec.GetSshFrom()
	if len(from) == 0 {
		from = []string{"any"}
	}
	c.allow("tcp", [][2]uint16{{sshPort, sshPort}}, from)
	for _, rule := range spec.GetRules() {
		c.allow(cmp.Or(rule.GetProtocol(), "tcp"), portsOf(rule.GetPorts()), rule.GetFrom())
	}
	return c.out
}

// firewallCompiler collects the rules of one pool.
type firewallCompiler struct {
	s       *state.Snapshot
	pool    *provisionrv1.Pool
	network *provisionrv1.Network
	out     provider.Firewall
	seen    map[provider.FirewallRule]bool
}

func (c *firewallCompiler) add(r provider.FirewallRule) {
	if !c.seen[r] {
		c.seen[r] = true
		c.out.Rules = append(c.out.Rules, r)
	}
}

// allow adds a rule for every range of ports and every source.
func (c *firewallCompiler) allow(protocol string, ports [][2]uint16, from []string) {
	for _, source := range from {
		pools, prefixes := c.source(source)
		for _, p := range ports {
			rule := provider.FirewallRule{Protocol: protocol, First: p[0], Last: p[1]}
			for _, rule.Pool = range pools {
				c.add(rule)
			}
			rule.Pool = ""
			for _, rule.From = range prefixes {
				c.add(rule)
			}
		}
	}
}

// source resolves who may connect. What stands for nothing, as a pool that does not exist, allows nobody; admission has
// checked the rest.
func (c *firewallCompiler) source(source string) (pools []string, prefixes []netip.Prefix) {
	name, isPool := strings.CutPrefix(source, "pool:")
	switch {
	case source == "any":
		return nil, everywhere
	case source == "self", isPool && name == c.out.Pool:
		return []string{c.out.Pool}, nil
	case isPool:
		return c.peer(name)
	case source == "network":
		if prefix, err := netip.ParsePrefix(c.network.GetSpec().GetCidr()); err == nil {
			return nil, []netip.Prefix{prefix.Masked()}
		}
		return nil, nil
	}
	if addr, err := netip.ParseAddr(source); err == nil {
		addr = addr.Unmap().WithZone("")
		return nil, []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}
	}
	if prefix, err := netip.ParsePrefix(source); err == nil {
		return nil, []netip.Prefix{prefix.Masked()}
	}
	return nil, nil
}

// peer is another pool: its group where it is attached alike, else the addresses of its machines.
func (c *firewallCompiler) peer(name string) (pools []string, prefixes []netip.Prefix) {
	peer := c.s.Pool(name)
	if peer == nil {
		return nil, nil
	}
	theirs := c.s.NetworkOf(peer).GetMetadata().GetName()
	if state.ProviderName(peer) == state.ProviderName(c.pool) && theirs == c.network.GetMetadata().GetName() {
		return []string{name}, nil
	}
	for m := range c.s.MachinesOf(name) {
		if m.GetStatus().GetPhase() == gone {
			continue
		}
		for _, text := range []string{m.GetStatus().GetAddress(), m.GetStatus().GetAddress6()} {
			if addr, err := netip.ParseAddr(text); err == nil {
				prefixes = append(prefixes, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			}
		}
	}
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return nil, prefixes
}

// portsOf parses ranges and leaves the canary's port out of them.
func portsOf(texts []string) (ports [][2]uint16) {
	for _, text := range texts {
		low, high, isRange := strings.Cut(text, "-")
		if !isRange {
			high = low
		}
		first, errFirst := strconv.ParseUint(low, 10, 16)
		last, errLast := strconv.ParseUint(high, 10, 16)
		if errFirst != nil || errLast != nil || first == 0 || last < first {
			continue // Admission has checked them.
		}
		a, b := uint16(first), uint16(last)
		if a > canaryPort || b < canaryPort {
			ports = append(ports, [2]uint16{a, b})
			continue
		}
		if a < canaryPort {
			ports = append(ports, [2]uint16{a, canaryPort - 1})
		}
		if b > canaryPort {
			ports = append(ports, [2]uint16{canaryPort + 1, b})
		}
	}
	return ports
}

// firewallHash identifies a compiled firewall of one pool: another pool of the same name has another.
func firewallHash(uid string, f provider.Firewall) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s\n%d\n", uid, f.Pool, f.Network.GetMetadata().GetName(), f.Network.GetMetadata().GetGeneration())
	for _, r := range f.Rules {
		fmt.Fprintln(h, r.Protocol, r.First, r.Last, r.From, r.Pool)
	}
	return hex.EncodeToString(h.Sum(nil))
}
