package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/resource/internal/netlink"
)

// Conn is a connection to the kernel's network configuration.
type Conn struct {
	nl *netlink.Conn
}

// Dial connects to the network namespace of the calling thread. The caller closes it.
func Dial() (*Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &Conn{c}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.nl.Close() }

// Link is a network interface.
type Link struct {
	Index int
	Name  string
	MTU   int
	Up    bool
	// Kind is what made it, as wireguard or tun; empty for hardware.
	Kind string
}

// Links returns all interfaces.
func (c *Conn) Links() ([]Link, error) {
	list, err := c.nl.List(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, fmt.Errorf("cannot list links: %w", err)
	}
	var links []Link
	for _, m := range list {
		if m.Type != unix.RTM_NEWLINK || len(m.Body) < unix.SizeofIfInfomsg {
			continue
		}
		a, err := netlink.Parse(m.Body[unix.SizeofIfInfomsg:])
		if err != nil {
			return nil, fmt.Errorf("cannot list links: %w", err)
		}
		info, err := netlink.Parse(a[unix.IFLA_LINKINFO])
		if err != nil {
			return nil, fmt.Errorf("cannot list links: %w", err)
		}
		links = append(links, Link{
			Index: int(int32(binary.NativeEndian.Uint32(m.Body[4:]))),
			Name:  a.Text(unix.IFLA_IFNAME), MTU: int(a.Number(unix.IFLA_MTU)),
			Up:   binary.NativeEndian.Uint32(m.Body[8:])&unix.IFF_UP != 0,
			Kind: info.Text(unix.IFLA_INFO_KIND),
		})
	}
	return links, nil
}

// Link returns the interface of a name, and whether there is one.
func (c *Conn) Link(name string) (Link, bool, error) {
	links, err := c.Links()
	for _, l := range links {
		if l.Name == name {
			return l, true, err
		}
	}
	return Link{}, false, err
}

// AddLink makes an interface of a kind. An error wraps unix.EOPNOTSUPP where the kernel does not know the kind.
func (c *Conn) AddLink(name, kind string) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	body = append(body, netlink.String(unix.IFLA_IFNAME, name)...)
	body = append(body, netlink.Attribute(unix.IFLA_LINKINFO, netlink.Attribute(unix.IFLA_INFO_KIND, []byte(kind)))...)
	if err := c.nl.Do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body); err != nil {
		return fmt.Errorf("cannot add link %s of kind %s: %w", name, kind, err)
	}
	return nil
}

// DeleteLink removes an interface.
func (c *Conn) DeleteLink(index int) error {
	err := c.nl.Do(unix.RTM_DELLINK, 0, linkBody(index, 0, 0))
	return ignore(err, "cannot delete link %d: %w", index, unix.ENODEV)
}

// SetUp switches an interface on.
func (c *Conn) SetUp(index int) error {
	if err := c.nl.Do(unix.RTM_NEWLINK, 0, linkBody(index, unix.IFF_UP, unix.IFF_UP)); err != nil {
		return fmt.Errorf("cannot switch on link %d: %w", index, err)
	}
	return nil
}

// SetMTU sets the largest packet of an interface, in octets.
func (c *Conn) SetMTU(index, mtu int) error {
	if err := c.nl.Do(unix.RTM_NEWLINK, 0, append(linkBody(index, 0, 0), netlink.Uint32(unix.IFLA_MTU, uint32(mtu))...)); err != nil {
		return fmt.Errorf("cannot set MTU %d of link %d: %w", mtu, index, err)
	}
	return nil
}

// linkBody is struct ifinfomsg.
func linkBody(index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// Address is an address of an interface with the length of its network's prefix.
type Address struct {
	Link   int
	Prefix netip.Prefix
}

// Addresses returns the addresses of all interfaces.
func (c *Conn) Addresses() ([]Address, error) {
	list, err := c.nl.List(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("cannot list addresses: %w", err)
	}
	var addresses []Address
	for _, m := range list {
		if m.Type != unix.RTM_NEWADDR || len(m.Body) < unix.SizeofIfAddrmsg {
			continue
		}
		a, err := netlink.Parse(m.Body[unix.SizeofIfAddrmsg:])
		if err != nil {
			return nil, fmt.Errorf("cannot list addresses: %w", err)
		}
		// IFA_ADDRESS is the other end's on links between two machines; IFA_LOCAL is missing for IPv6.
		raw, ok := a[unix.IFA_LOCAL]
		if !ok {
			raw = a[unix.IFA_ADDRESS]
		}
		if addr, ok := netip.AddrFromSlice(raw); ok {
			addresses = append(addresses, Address{int(binary.NativeEndian.Uint32(m.Body[4:])), netip.PrefixFrom(addr, int(m.Body[1]))})
		}
	}
	return addresses, nil
}

// AddAddress gives an address to an interface.
func (c *Conn) AddAddress(a Address) error {
	err := c.nl.Do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a.body())
	if err != nil {
		return fmt.Errorf("cannot add address %s: %w", a.Prefix, err)
	}
	return nil
}

// DeleteAddress takes an address from an interface.
func (c *Conn) DeleteAddress(a Address) error {
	return ignore(c.nl.Do(unix.RTM_DELADDR, 0, a.body()), "cannot delete address %s: %w", a.Prefix, unix.EADDRNOTAVAIL, unix.ENODEV)
}

// body is struct ifaddrmsg with the address, without duplicate address detection: whoever gives addresses made sure.
func (a Address) body() []byte {
	b := make([]byte, unix.SizeofIfAddrmsg)
	b[0], b[1] = family(a.Prefix.Addr()), byte(a.Prefix.Bits())
	if !a.Prefix.Addr().Is4() {
		b[2] = unix.IFA_F_NODAD
	}
	binary.NativeEndian.PutUint32(b[4:], uint32(a.Link))
	raw := a.Prefix.Addr().AsSlice()
	b = append(b, netlink.Attribute(unix.IFA_LOCAL, raw)...)
	return append(b, netlink.Attribute(unix.IFA_ADDRESS, raw)...)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// ignore wraps an error, and takes some for success.
func ignore(err error, format string, what any, success ...error) error {
	if err == nil {
		return nil
	}
	for _, s := range success {
		if errors.Is(err, s) {
			return nil
		}
	}
	return fmt.Errorf(format, what, err)
}
