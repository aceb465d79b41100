package desired

import (
	"encoding/base64"
	"net/netip"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func (s *State) validateNetworking() error {
	n := s.Pool.Networking
	if n.GetMtu() != 0 && (n.Mtu < 1280 || n.Mtu > 9216) {
		return invalid("mtu %d", n.Mtu)
	}
	for _, a := range n.GetAddresses() {
		if !isCIDR(a) {
			return invalid("further address %q", a)
		}
	}
	for _, r := range n.GetRoutes() {
		if !isCIDR(r.To) || !isAddr(r.Via) {
			return invalid("route to %q through %q", r.To, r.Via)
		}
	}
	return nil
}

func (s *State) validateVPN() error {
	if v := s.Machine.Vpn; v != nil {
		cidr, err := netip.ParsePrefix(v.Cidr)
		switch {
		case !isLabel(v.Name) || err != nil:
			return invalid("vpn %q of %q", v.Name, v.Cidr)
		case v.Port < 1 || v.Port > 65535 || v.Mtu < 1280 || v.Mtu > 9000:
			return invalid("port %d or mtu %d of vpn %s", v.Port, v.Mtu, v.Name)
		case v.Address != "" && (!isAddr(v.Address) || !cidr.Contains(netip.MustParseAddr(v.Address))):
			return invalid("address %q in vpn %s", v.Address, v.Name)
		}
		for _, r := range v.Routes {
			if !isCIDR(r) {
				return invalid("route %q of vpn %s", r, v.Name)
			}
		}
	}
	for _, n := range s.VPN {
		if err := validateNode(n); err != nil {
			return err
		}
	}
	return nil
}

func validateNode(n *agentv1.VpnNode) error {
	key, err := base64.StdEncoding.DecodeString(n.PublicKey)
	switch {
	case !isLabel(n.Name), n.Pool != "" && !isLabel(n.Pool):
		return invalid("vpn node %q of pool %q", n.Name, n.Pool)
	case n.MachineId != "" && !isHost(n.MachineId), n.Via != "" && !isHost(n.Via):
		return invalid("machine %q or relay %q of vpn node %s", n.MachineId, n.Via, n.Name)
	case err != nil || len(key) != 32:
		return invalid("public key of vpn node %s", n.Name)
	case n.Endpoint != "" && !isHostPort(n.Endpoint), !isAddr(n.Address):
		return invalid("endpoint %q or address %q of vpn node %s", n.Endpoint, n.Address, n.Name)
	}
	for _, r := range n.Routes {
		if !isCIDR(r) {
			return invalid("route %q of vpn node %s", r, n.Name)
		}
	}
	return nil
}
