package session

import (
	"net"
	"net/netip"
	"strconv"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/dnszone"
)

// chunkSize is how many slots, by index, one chunk of membership holds: one machine's change costs its peers one chunk.
const chunkSize = 256

// readyPrefix begins the names of components that say which members are ready. They are told, but left out of
// Desired.hash: readiness asks nothing of a machine, and with it in the hash each machine that becomes ready would have
// all its peers converge, report and be judged anew.
const readyPrefix = "ready/"

// chunks returns the encoded membership of a pool: every slot, held or not, for templates depend on the names alone, and
// beside it which of them are ready.
func (v *view) chunks(pool string) ([]part, error) {
	if known, ok := v.members[pool]; ok {
		return known, nil
	}
	var parts []part
	chunk, ready, number := &agentv1.MemberChunk{Pool: pool}, &agentv1.MemberChunk{Pool: pool}, uint32(0)
	flush := func() error {
		place := pool + "/" + strconv.FormatUint(uint64(number), 10)
		for prefix, c := range map[string]*agentv1.MemberChunk{"members/": chunk, readyPrefix: ready} {
			if len(c.Members) == 0 {
				continue
			}
			p, err := encodeChunk(prefix+place, c)
			if err != nil {
				return err
			}
			parts = append(parts, p)
			c.Members = nil
		}
		return nil
	}
	for slot := range v.s.SlotsOf(pool) {
		if n := (slot.GetIndex() - 1) / chunkSize; n != number {
			if err := flush(); err != nil {
				return nil, err
			}
			number = n
		}
		m := v.s.Machine(slot.GetHolder())
		chunk.Members = append(chunk.Members, v.member(slot, m))
		if dnszone.Ready(m) {
			ready.Members = append(ready.Members, &agentv1.Member{Index: slot.GetIndex()})
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	v.members[pool] = parts
	return parts, nil
}

// encodeChunk encodes a chunk, from which it then takes the further addresses: only names are answered with these, so that
// they ask nothing of a machine, and members of builds that know them or do not agree about what does.
func encodeChunk(name string, c *agentv1.MemberChunk) (part, error) {
	whole, err := encode(name, c)
	if err != nil {
		return part{}, err
	}
	further := false
	for _, m := range c.GetMembers() {
		further = further || len(m.GetFurtherAddresses()) > 0
		m.FurtherAddresses = nil
	}
	if !further {
		return whole, nil
	}
	bare, err := encode(name, c)
	whole.asked = bare.ref.GetHash()
	return whole, err
}

func (v *view) member(slot *provisionrv1.Slot, m *provisionrv1.Machine) *agentv1.Member {
	out := &agentv1.Member{
		Name: slot.GetMetadata().GetName(), Fqdn: slot.GetFqdn(), Index: slot.GetIndex(), MachineId: slot.GetHolder(),
	}
	if addrs := dnszone.Addresses(v.s, m); len(addrs) > 0 {
		out.Address = addrs[0].String()
		for _, addr := range addrs[1:] {
			out.FurtherAddresses = append(out.FurtherAddresses, addr.String())
		}
	}
	// In a mesh the vpn component has it.
	if vpn := m.GetStatus().GetVpn(); vpn != "" && m.GetStatus().GetFacts().GetVpnPublicKey() != "" && !v.vpnNodes(vpn).mesh {
		out.VpnAddress = m.GetStatus().GetVpnAddress()
	}
	return out
}

// dnsServers returns host:port of every member's DNS server, as reachable from a network, in order of member.
func (v *view) dnsServers(network string) []string {
	if known, ok := v.servers[network]; ok {
		return known
	}
	var servers []string
	for m := range v.s.Members() {
		_, port, err := net.SplitHostPort(m.GetDnsAddress())
		if err != nil {
			port = "53"
		}
		// Only an address will do: the machine resolves names through these very servers.
		for _, host := range []string{m.GetNetworkHosts()[network], hostOf(m.GetDnsAddress()), hostOf(m.GetAgentAddress())} {
			if addr, err := netip.ParseAddr(host); err == nil && !addr.IsUnspecified() {
				servers = append(servers, net.JoinHostPort(addr.String(), port))
				break
			}
		}
	}
	v.servers[network] = servers
	return servers
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return host
}
