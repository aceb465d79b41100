package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/provider"
)

// checkOverlap refuses a range that the host already has on another link: machines or the host's own network would be cut off.
func checkOverlap(n Network, bridge string) error {
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("cannot list the host's addresses: %w", err)
	}
	own, _ := netlink.LinkByName(bridge) // nil when it is not there yet
	for _, a := range addresses {
		ip, ok := netip.AddrFromSlice(a.IP.To4())
		bits, _ := a.Mask.Size()
		if !ok || (own != nil && a.LinkIndex == own.Attrs().Index) {
			continue
		}
		if other := netip.PrefixFrom(ip, bits); other.Overlaps(n.Prefix) {
			return provider.Errorf(provider.Invalid, "range %s overlaps the host's address %s: choose another range for the network", n.Prefix, other)
		}
	}
	return nil
}

func ensureBridge(n Network, name, alias string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		// A fixed address: else the bridge changes it with its ports and machines lose their neighbour entry.
		attrs.HardwareAddr = host.HardwareAddress(name)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("bridge %s: %w", name, err)
		}
		link, err = netlink.LinkByName(name)
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	if err := netlink.LinkSetAlias(link, alias); err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: n.Gateway.AsSlice(), Mask: net.CIDRMask(n.Prefix.Bits(), 32)}}
	if err := netlink.AddrReplace(link, address); err != nil {
		return fmt.Errorf("address of bridge %s: %w", name, err)
	}
	if err := disableIPv6(name); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// RemoveLink removes an interface; that there is none is success.
func RemoveLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	return err
}

// removeLinks removes every link that has the alias, whatever its name.
func removeLinks(alias string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().Alias == alias {
			err = errors.Join(err, RemoveLink(l.Attrs().Name))
		}
	}
	return err
}

// disableIPv6 on one of the host's links: the host must not offer machines a way around their addresses.
func disableIPv6(link string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", link, "disable_ipv6"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// AddTap makes a tap device that outlasts the program that uses it, as a port of the network's bridge (tun(4)). One that
// is there already is taken.
func (m *Manager) AddTap(name string, n Network) error {
	bridge, err := netlink.LinkByName(m.Bridge(n.Name))
	if err != nil {
		return fmt.Errorf("bridge of network %s: %w", n.Name, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_DEFAULTS | netlink.TUNTAP_VNET_HDR}
	if err := netlink.LinkAdd(tap); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("tap %s: %w", name, err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("tap %s: %w", name, err)
	}
	for _, set := range []func() error{
		func() error { return netlink.LinkSetAlias(link, m.config.Scope) },
		func() error { return disableIPv6(name) },
		func() error { return netlink.LinkSetMaster(link, bridge) },
		func() error { return netlink.LinkSetUp(link) },
	} {
		if err := set(); err != nil {
			return fmt.Errorf("tap %s: %w", name, err)
		}
	}
	return nil
}
