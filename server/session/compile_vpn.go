package session

import (
	"cmp"
	"hash/fnv"
	"net"
	"slices"
	"strconv"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/dnszone"
	"github.com/provisionr/provisionr/server/state"
)

// peerParty begins the party of a VpnPeer: no pool's name has it.
const peerParty = "peer/"

// vpnNodes are all ends of one Vpn.
type vpnNodes struct {
	vpn *provisionrv1.Vpn
	// nodes are the machines by pool and index, then the VpnPeers by name, without what depends on who looks.
	nodes []*agentv1.VpnNode
	// relays and gateways are the machine ids of those that can be counted on.
	relays, gateways []string
	// mesh says that all machines may be peers of each other. Beyond it each end that is no relay has one, its home, for all of
	// its traffic, so that one machine that joins is told to relays alone.
	mesh bool
}

// viewer is who looks at a Vpn: the machines of a pool, or the VpnPeer named peer, which counts as behind NAT.
type viewer struct {
	pool, peer                string
	relay, gateway, behindNAT bool
}

func (w viewer) isRelay() bool { return w.relay && !w.behindNAT }

func (w viewer) party() string {
	if w.peer != "" {
		return peerParty + w.peer
	}
	return w.pool
}

// VpnNodes returns the ends of a Vpn as a VpnPeer sees them: the peers of its device are those without Via. It is empty
// where there is no such Vpn.
func VpnNodes(s *state.Snapshot, vpn, peer string) []*agentv1.VpnNode {
	v := &view{s: s}
	if s.Vpn(vpn) == nil {
		return nil
	}
	return v.gather(vpn).seenBy(viewer{peer: peer, behindNAT: true})
}

// vpnMember says how a machine takes part in its pool's Vpn; nil where there is none.
func (v *view) vpnMember(m *provisionrv1.Machine, pool *provisionrv1.Pool) *agentv1.VpnMember {
	p := pool.GetSpec().GetVpn()
	vpn := v.s.Vpn(p.GetName())
	if vpn == nil {
		return nil
	}
	spec := vpn.GetSpec()
	c := &agentv1.VpnMember{
		Name: p.GetName(), Cidr: spec.GetCidr(), Port: cmp.Or(spec.GetPort(), state.DefaultVpnPort), Mtu: cmp.Or(spec.GetMtu(), state.DefaultVpnMTU),
		Gateway: p.GetGateway(), Relay: p.GetRelay(), BehindNat: p.GetBehindNat(), Routes: spec.GetRoutes(),
	}
	if m.GetStatus().GetVpn() == p.GetName() {
		c.Address = m.GetStatus().GetVpnAddress()
	}
	return c
}

// vpn returns the encoded vpn component of a pool.
func (v *view) vpn(pool *provisionrv1.Pool) (part, error) {
	name, spec := pool.GetMetadata().GetName(), pool.GetSpec().GetVpn()
	if known, ok := v.vpns[name]; ok {
		return known, nil
	}
	nodes := v.vpnNodes(spec.GetName()).seenBy(viewer{pool: name, relay: spec.GetRelay(), gateway: spec.GetGateway(), behindNAT: spec.GetBehindNat()})
	encoded, err := encode("vpn", &agentv1.VpnComponent{Nodes: nodes})
	if err == nil {
		v.vpns[name] = encoded
	}
	return encoded, err
}

// vpnNodes returns the ends of a Vpn.
func (v *view) vpnNodes(name string) *vpnNodes {
	all, ok := v.nodes[name]
	if !ok {
		all = v.gather(name)
		v.nodes[name] = all
	}
	return all
}

// gather lists the ends of a Vpn that have a key and an address.
func (v *view) gather(name string) *vpnNodes {
	all := &vpnNodes{vpn: v.s.Vpn(name)}
	port := strconv.FormatUint(uint64(cmp.Or(all.vpn.GetSpec().GetPort(), state.DefaultVpnPort)), 10)
	var machines []*provisionrv1.Machine
	for m := range v.s.VpnMachines(name) {
		status := m.GetStatus()
		// Who has the key of a quarantined machine is not known.
		if status.GetPhase() != provisionrv1.Phase_PHASE_GONE && status.GetQuarantined() == "" && status.GetFacts().GetVpnPublicKey() != "" &&
			v.poolOf(m.GetSpec().GetPool()).GetSpec().GetVpn().GetName() == name {
			machines = append(machines, m)
		}
	}
	slices.SortFunc(machines, func(a, b *provisionrv1.Machine) int {
		return cmp.Or(cmp.Compare(a.GetSpec().GetPool(), b.GetSpec().GetPool()), cmp.Compare(a.GetSpec().GetIndex(), b.GetSpec().GetIndex()),
			cmp.Compare(a.GetMetadata().GetName(), b.GetMetadata().GetName()))
	})
	for _, m := range machines {
		p := v.poolOf(m.GetSpec().GetPool()).GetSpec().GetVpn()
		node := &agentv1.VpnNode{
			Name: m.GetSpec().GetSlot(), MachineId: m.GetMetadata().GetName(), Pool: m.GetSpec().GetPool(),
			PublicKey: m.GetStatus().GetFacts().GetVpnPublicKey(), Address: m.GetStatus().GetVpnAddress(),
			Gateway: p.GetGateway(), Relay: p.GetRelay() && !p.GetBehindNat(), BehindNat: p.GetBehindNat(),
		}
		if addrs := dnszone.Addresses(v.s, m); len(addrs) > 0 && !node.BehindNat {
			node.Endpoint = net.JoinHostPort(addrs[0].String(), port)
		}
		if node.Relay {
			all.relays = append(all.relays, node.MachineId)
		}
		if node.Gateway {
			all.gateways = append(all.gateways, node.MachineId)
		}
		all.nodes = append(all.nodes, node)
	}
	all.relays, all.gateways = v.reliable(all.relays), v.reliable(all.gateways)
	all.mesh = len(machines) <= int(cmp.Or(all.vpn.GetSpec().GetMeshLimit(), state.DefaultVpnMeshLimit)) || len(all.relays) == 0
	for p := range v.s.VpnPeersOf(name) {
		all.nodes = append(all.nodes, &agentv1.VpnNode{
			Name: p.GetMetadata().GetName(), PublicKey: p.GetSpec().GetPublicKey(), Address: p.GetAddress(), Routes: p.GetSpec().GetRoutes(), BehindNat: true,
		})
	}
	return all
}

// reliable leaves out machines that are on their way out or lost, unless there are no others.
func (v *view) reliable(ids []string) []string {
	var staying []string
	for _, id := range ids {
		switch v.s.Machine(id).GetStatus().GetPhase() {
		case provisionrv1.Phase_PHASE_UNREACHABLE, provisionrv1.Phase_PHASE_DRAINING, provisionrv1.Phase_PHASE_TERMINATING, provisionrv1.Phase_PHASE_FAILED:
		default:
			staying = append(staying, id)
		}
	}
	if len(staying) == 0 {
		return ids
	}
	return staying
}

// seenBy returns the nodes with what depends on who looks: the relays that stand between. Both ends of a pair get the same
// relay. One gateway has the routes, the same for all but gateways, for in a WireGuard network an address has one way only, and
// what comes back must come the same way.
func (a *vpnNodes) seenBy(w viewer) []*agentv1.VpnNode {
	gateway := ""
	if !w.gateway {
		gateway = choose(a.gateways, a.vpn.GetMetadata().GetName())
	}
	home := ""
	if !a.mesh && !w.isRelay() {
		home = choose(a.relays, w.party())
	}
	var nodes []*agentv1.VpnNode
	for _, n := range a.nodes {
		routes, via := n.Routes, ""
		if n.MachineId != "" && n.MachineId == gateway {
			routes = a.vpn.GetSpec().GetRoutes()
		}
		switch {
		case home == "":
			via = a.via(w, n)
		case n.MachineId == home:
			routes = append([]string{a.vpn.GetSpec().GetCidr()}, routes...)
		case len(routes) == 0 || n.MachineId == "" && n.Name == w.peer:
			continue // within the Vpn's range, which is behind home
		default:
			via = home
		}
		nodes = append(nodes, &agentv1.VpnNode{
			Name: n.Name, MachineId: n.MachineId, Pool: n.Pool, PublicKey: n.PublicKey, Endpoint: n.Endpoint, Address: n.Address, Routes: routes,
			Gateway: n.Gateway, Relay: n.Relay, BehindNat: n.BehindNat, Via: via,
		})
	}
	return nodes
}

// via returns the relay between a node and a viewer, which is a relay itself or in a mesh; empty where they are peers of each
// other. The relay that is the node's home is told itself: it is a peer.
func (a *vpnNodes) via(w viewer, n *agentv1.VpnNode) string {
	other := viewer{pool: n.Pool, behindNAT: n.BehindNat}
	if n.MachineId == "" {
		other.peer = n.Name
	}
	switch {
	case n.Relay:
		return ""
	case !a.mesh:
		return choose(a.relays, other.party())
	case w.behindNAT && other.behindNAT:
		first, second := min(w.party(), other.party()), max(w.party(), other.party())
		return choose(a.relays, first+"\x00"+second)
	}
	return ""
}

// choose picks one of several machines by rendezvous hashing: where one leaves, only what it had goes to others.
func choose(ids []string, what string) string {
	best, most := "", uint64(0)
	for _, id := range ids {
		h := fnv.New64a()
		h.Write([]byte(what + "\x00" + id))
		if sum := mix(h.Sum64()); best == "" || sum > most {
			best, most = id, sum
		}
	}
	return best
}

// mix spreads what the last octets did to an FNV sum over all of its bits (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
