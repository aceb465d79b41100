package host

import (
	"net"
	"net/netip"

	"github.com/provisionr/provisionr/cloudinit"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Seed returns the files of a NoCloud data source by name. The interface is eth0; with a hardware address it is the one
// that has that address, and is renamed.
func Seed(r *provisionrv1.LaunchRequest, userData []byte, address netip.Prefix, gateway netip.Addr, mac net.HardwareAddr) (map[string][]byte, error) {
	var servers []netip.Addr
	for _, s := range r.GetDnsServers() {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		servers = append(servers, a)
	}
	meta, err := cloudinit.MetaData(r.GetMachineId(), r.GetFqdn())
	if err != nil {
		return nil, err
	}
	config, err := cloudinit.NetworkConfig(cloudinit.Network{HardwareAddress: mac, Address: address, Gateway: gateway, Nameservers: servers})
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"user-data": userData, "meta-data": meta, "network-config": config}, nil
}
