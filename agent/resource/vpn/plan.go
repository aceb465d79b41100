package vpn

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	defaultPort = 51820
	defaultMTU  = 1420
)

// config is the interface as desired.
type config struct {
	// address has the prefix length of the VPN's range, so that the kernel routes the range itself.
	address netip.Prefix
	port    int
	mtu     int
	// peers are in order of name.
	peers []peer
	// routes are the ranges beyond the VPN's own, sorted.
	routes []netip.Prefix
	// keepalive says that the machine is behind NAT and keeps its peers' way back open.
	keepalive bool
	forward   bool
}

// peer is another end.
type peer struct {
	name string
	key  [keySize]byte
	// endpoint is the zero value where only the peer can begin.
	endpoint netip.AddrPort
	// allowed are the ranges that are behind it, sorted.
	allowed []netip.Prefix
}

// plan decides what the interface of a machine is. Its address may be missing yet: the zero config.
func plan(s *desired.State) (config, error) {
	m := s.Machine.GetVpn()
	if m.GetAddress() == "" {
		return config{}, nil
	}
	cidr, err := netip.ParsePrefix(m.Cidr)
	if err != nil {
		return config{}, errs.New(errs.Invalid, "cannot use range %q of the VPN", m.Cidr)
	}
	address, err := netip.ParseAddr(m.Address)
	if err != nil || !cidr.Contains(address) {
		return config{}, errs.New(errs.Invalid, "cannot use address %q in range %s of the VPN", m.Address, cidr)
	}
	c := config{
		address: netip.PrefixFrom(address, cidr.Bits()), port: int(m.Port), mtu: int(m.Mtu),
		keepalive: m.BehindNat, forward: m.Gateway || m.Relay,
	}
	if c.port == 0 {
		c.port = defaultPort
	}
	if c.mtu == 0 {
		c.mtu = defaultMTU
	}
	if err := c.mesh(s, cidr); err != nil {
		return config{}, err
	}
	return c, nil
}

// mesh makes the peers: nodes of their own first, then what is behind relays. A range belongs to one peer alone: to the first
// that has it, in order of name; what is behind this machine itself, to none.
func (c *config) mesh(s *desired.State, cidr netip.Prefix) error {
	self := s.Machine.MachineId
	taken := make(map[netip.Prefix]bool)
	relays := make(map[string]int)
	nodes := slices.Clone(s.VPN)
	slices.SortStableFunc(nodes, func(a, b *agentv1.VpnNode) int { return strings.Compare(a.Name, b.Name) })
	for _, n := range nodes {
		if n.MachineId == self && self != "" {
			for _, r := range n.Routes {
				if p, err := netip.ParsePrefix(r); err == nil {
					taken[p.Masked()] = true
				}
			}
		}
	}
	known := func(id string) bool {
		return slices.ContainsFunc(nodes, func(n *agentv1.VpnNode) bool { return n.MachineId == id && n.Address != "" && n.PublicKey != "" })
	}
	var behind []*agentv1.VpnNode
	for _, n := range nodes {
		switch {
		case n.MachineId == self && self != "", n.Address == "", n.PublicKey == "":
			continue
		case n.Via != "" && n.Via != self && known(n.Via):
			behind = append(behind, n)
			continue
		}
		p, err := newPeer(n)
		if err != nil {
			return err
		}
		if err := c.allow(&p, n, cidr, taken); err != nil {
			return err
		}
		if n.MachineId != "" {
			relays[n.MachineId] = len(c.peers)
		}
		c.peers = append(c.peers, p)
	}
	for _, n := range behind {
		i, ok := relays[n.Via]
		if !ok {
			continue // behind a relay that is behind another: unreachable, as the servers have it
		}
		if err := c.allow(&c.peers[i], n, cidr, taken); err != nil {
			return err
		}
	}
	for i := range c.peers {
		slices.SortFunc(c.peers[i].allowed, comparePrefix)
	}
	slices.SortFunc(c.routes, comparePrefix)
	return nil
}

func newPeer(n *agentv1.VpnNode) (peer, error) {
	p := peer{name: n.Name}
	raw, err := base64.StdEncoding.DecodeString(n.PublicKey)
	if err != nil || len(raw) != keySize {
		return peer{}, errs.New(errs.Invalid, "cannot use public key %q of VPN node %s", n.PublicKey, n.Name)
	}
	p.key = [keySize]byte(raw)
	if n.Endpoint != "" {
		if p.endpoint, err = netip.ParseAddrPort(n.Endpoint); err != nil {
			return peer{}, errs.New(errs.Invalid, "cannot use endpoint %q of VPN node %s", n.Endpoint, n.Name)
		}
		p.endpoint = netip.AddrPortFrom(p.endpoint.Addr().Unmap(), p.endpoint.Port())
	}
	return p, nil
}

// allow gives a node's address and ranges to a peer, and routes the ranges that the VPN's own does not hold.
func (c *config) allow(p *peer, n *agentv1.VpnNode, cidr netip.Prefix, taken map[netip.Prefix]bool) error {
	address, err := netip.ParseAddr(n.Address)
	if err != nil {
		return errs.New(errs.Invalid, "cannot use address %q of VPN node %s", n.Address, n.Name)
	}
	ranges := []netip.Prefix{netip.PrefixFrom(address, address.BitLen())}
	for _, text := range n.Routes {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return errs.New(errs.Invalid, "cannot use range %q behind VPN node %s", text, n.Name)
		}
		ranges = append(ranges, r.Masked())
	}
	for i, r := range ranges {
		if taken[r] {
			continue
		}
		taken[r] = true
		p.allowed = append(p.allowed, r)
		if inside := cidr.Contains(r.Addr()) && r.Bits() >= cidr.Bits(); i > 0 && !inside {
			c.routes = append(c.routes, r)
		}
	}
	return nil
}

func comparePrefix(a, b netip.Prefix) int {
	if d := a.Addr().Compare(b.Addr()); d != 0 {
		return d
	}
	return a.Bits() - b.Bits()
}

// fingerprint identifies what can cut the machine off: the ranges that lead into the VPN.
func (c *config) fingerprint() string {
	return fmt.Sprintf("%s port %d mtu %d routes %v", c.address.Masked(), c.port, c.mtu, c.routes)
}
