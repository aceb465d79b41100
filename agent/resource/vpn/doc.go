// Package vpn attaches the machine to its WireGuard network: a key pair that is made here and never leaves, the interface
// pvn0, its addresses, peers and routes.
//
// The interface is the kernel's own WireGuard where the kernel has it. Elsewhere a small program of ours
// (cmd/provisionr-wireguard) carries it in userspace on a TUN device, as a systemd unit of its own, so that the VPN outlives
// the agent. Either way it is configured through one interface, and only what differs is changed, so that handshakes survive.
//
// Until the machine's public key has been reported and an address was assigned, only the key is made. Every other node is a
// peer of its own, or is reached through a relay's. Ranges behind gateways are routed into the interface with a metric of our
// own, so that no route of the system is replaced; the machine's own network keeps its route. A gateway or relay has the
// kernel forward packets; which ones, says the firewall.
//
// A route into the VPN may swallow the way to the servers: changes of ranges are guarded and undone. Peers that come and go
// are not.
//
// Check reads netlink, WireGuard's own interface and files; it runs no program.
package vpn
