package cloudinit

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
)

// MetaData returns NoCloud meta-data: the machine's id as instance-id and the host name, which may be fully qualified.
func MetaData(machineID, hostname string) ([]byte, error) {
	if !idPattern.MatchString(machineID) {
		return nil, errs.New(errs.Invalid, "cannot render meta-data: invalid machine id %q", machineID)
	}
	if len(hostname) > 253 || !namePattern.MatchString(hostname) {
		return nil, errs.New(errs.Invalid, "cannot render meta-data: invalid host name %q", hostname)
	}
	return []byte("instance-id: '" + machineID + "'\nlocal-hostname: '" + hostname + "'\n"), nil
}

// Network is the addressing of a machine with a static address.
type Network struct {
	// Interface to configure. Default: eth0. A glob would not do: cloud-init 22.4 ignores match by name.
	Interface string
	// HardwareAddress finds the interface by its address and renames it. Default: it is found by its name.
	HardwareAddress net.HardwareAddr
	// Address with the network's prefix length.
	Address netip.Prefix
	// Gateway is the default route; the zero Addr means none. It must be within the network.
	Gateway netip.Addr
	// Nameservers are the resolvers until the agent takes over.
	Nameservers []netip.Addr
	// Search domains, without final dots.
	Search []string
}

// NetworkConfig returns a version 2 network-config without DHCP and router advertisements, for either of which the boot
// would wait in vain.
func NetworkConfig(n Network) ([]byte, error) {
	device := n.Interface
	if device == "" {
		device = "eth0"
	}
	if len(device) > 15 || !idPattern.MatchString(device) {
		return nil, errs.New(errs.Invalid, "cannot render network-config: invalid interface %q", device)
	}
	if !n.Address.IsValid() || n.Address.Addr().Zone() != "" {
		return nil, errs.New(errs.Invalid, "cannot render network-config: invalid address %q", n.Address)
	}
	var b strings.Builder
	b.WriteString("version: 2\nethernets:\n  " + device + ":\n")
	if len(n.HardwareAddress) > 0 {
		b.WriteString("    match: {macaddress: '" + n.HardwareAddress.String() + "'}\n    set-name: " + device + "\n")
	}
	b.WriteString("    dhcp4: false\n    dhcp6: false\n    accept-ra: false\n")
	b.WriteString("    addresses: ['" + n.Address.String() + "']\n")
	if n.Gateway.IsValid() {
		if !n.Address.Masked().Contains(n.Gateway) {
			return nil, errs.New(errs.Invalid, "cannot render network-config: gateway %s is outside %s", n.Gateway, n.Address.Masked())
		}
		all := "0.0.0.0/0"
		if n.Gateway.Is6() {
			all = "::/0"
		}
		b.WriteString("    routes:\n    - to: '" + all + "'\n      via: '" + n.Gateway.String() + "'\n")
	}
	if len(n.Nameservers)+len(n.Search) > 0 {
		b.WriteString("    nameservers:\n")
	}
	if len(n.Nameservers) > 0 {
		var list []string
		for _, a := range n.Nameservers {
			if !a.IsValid() || a.Zone() != "" {
				return nil, errs.New(errs.Invalid, "cannot render network-config: invalid nameserver %q", a)
			}
			list = append(list, strconv.Quote(a.String()))
		}
		b.WriteString("      addresses: [" + strings.Join(list, ", ") + "]\n")
	}
	if len(n.Search) > 0 {
		var list []string
		for _, name := range n.Search {
			if len(name) > 253 || !namePattern.MatchString(name) {
				return nil, errs.New(errs.Invalid, "cannot render network-config: invalid search domain %q", name)
			}
			list = append(list, strconv.Quote(name))
		}
		b.WriteString("      search: [" + strings.Join(list, ", ") + "]\n")
	}
	return []byte(b.String()), nil
}
