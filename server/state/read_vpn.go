package state

import (
	"iter"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Vpn returns the WireGuard network, or nil.
func (s *Snapshot) Vpn(name string) *provisionrv1.Vpn {
	return get[*provisionrv1.Vpn](s, TableVpns, key(name))
}

// Vpns yields all WireGuard networks by name.
func (s *Snapshot) Vpns() iter.Seq[*provisionrv1.Vpn] {
	return scan[*provisionrv1.Vpn](s, TableVpns, idIndex, nil)
}

// VpnPeer returns the peer, or nil.
func (s *Snapshot) VpnPeer(name string) *provisionrv1.VpnPeer {
	return get[*provisionrv1.VpnPeer](s, TableVpnPeers, key(name))
}

// VpnPeers yields the peers of all WireGuard networks by name.
func (s *Snapshot) VpnPeers() iter.Seq[*provisionrv1.VpnPeer] {
	return scan[*provisionrv1.VpnPeer](s, TableVpnPeers, idIndex, nil)
}

// VpnPeersOf yields the peers of a Vpn by address.
func (s *Snapshot) VpnPeersOf(vpn string) iter.Seq[*provisionrv1.VpnPeer] {
	return scan[*provisionrv1.VpnPeer](s, TableVpnPeers, "vpn", key(vpn))
}

// VpnMachines yields the machines that have an address of a Vpn, by address.
func (s *Snapshot) VpnMachines(vpn string) iter.Seq[*provisionrv1.Machine] {
	return scan[*provisionrv1.Machine](s, TableMachines, "vpn", key(vpn))
}

// MachinesWithVpnKey yields the machines that say that a WireGuard key is theirs, gone ones included.
func (s *Snapshot) MachinesWithVpnKey(publicKey string) iter.Seq[*provisionrv1.Machine] {
	return scan[*provisionrv1.Machine](s, TableMachines, "vpn_key", key(publicKey))
}

// What holds for a Vpn whose specification leaves it out.
const (
	DefaultVpnPort      = 51820
	DefaultVpnMeshLimit = 64
	DefaultVpnMTU       = 1420
)
