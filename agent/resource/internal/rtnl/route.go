package rtnl

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/resource/internal/netlink"
)

// metric6 is what the kernel makes of metric 0 of an IPv6 route (IP6_RT_PRIO_USER).
const metric6 = 1024

// Route is a route of the main table.
type Route struct {
	// To is 0.0.0.0/0 or ::/0 for the default route.
	To netip.Prefix
	// Via is the router; the zero value for what is on the link itself.
	Via    netip.Addr
	Link   int
	Metric uint32
	// Kernel says that the kernel made it, for an address. It is not looked at where a route is added or deleted.
	Kernel bool
}

// Routes returns the unicast routes of the main table that lead over one link.
func (c *Conn) Routes() ([]Route, error) {
	list, err := c.nl.List(unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg))
	if err != nil {
		return nil, fmt.Errorf("cannot list routes: %w", err)
	}
	var routes []Route
	for _, m := range list {
		if m.Type != unix.RTM_NEWROUTE || len(m.Body) < unix.SizeofRtMsg || m.Body[4] != unix.RT_TABLE_MAIN || m.Body[7] != unix.RTN_UNICAST {
			continue
		}
		a, err := netlink.Parse(m.Body[unix.SizeofRtMsg:])
		if err != nil {
			return nil, fmt.Errorf("cannot list routes: %w", err)
		}
		if a[unix.RTA_OIF] == nil {
			continue
		}
		to := netip.IPv4Unspecified()
		if m.Body[0] == unix.AF_INET6 {
			to = netip.IPv6Unspecified()
		}
		if addr, ok := netip.AddrFromSlice(a[unix.RTA_DST]); ok {
			to = addr
		}
		via, _ := netip.AddrFromSlice(a[unix.RTA_GATEWAY])
		routes = append(routes, Route{
			To: netip.PrefixFrom(to, int(m.Body[1])), Via: via, Link: int(a.Number(unix.RTA_OIF)), Metric: a.Number(unix.RTA_PRIORITY),
			Kernel: m.Body[5] == unix.RTPROT_KERNEL,
		})
	}
	return routes, nil
}

// Same reports whether two routes are one: the kernel gives IPv6 routes without a metric one.
func (r Route) Same(o Route) bool {
	return r.To == o.To && r.Via == o.Via && r.Link == o.Link && r.metric() == o.metric()
}

func (r Route) metric() uint32 {
	if r.Metric == 0 && !r.To.Addr().Is4() && !r.Kernel {
		return metric6
	}
	return r.Metric
}

// AddRoute adds a route. One to the same range with the same metric over another way is refused by the kernel with EEXIST.
func (c *Conn) AddRoute(r Route) error {
	if err := c.nl.Do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.body()); err != nil {
		return fmt.Errorf("cannot add route to %s: %w", r.To, err)
	}
	return nil
}

// DeleteRoute removes a route.
func (c *Conn) DeleteRoute(r Route) error {
	b := r.body()
	// Whoever made it: the fields that the kernel compares only where they are given.
	b[5], b[6] = unix.RTPROT_UNSPEC, unix.RT_SCOPE_NOWHERE
	return ignore(c.nl.Do(unix.RTM_DELROUTE, 0, b), "cannot delete route to %s: %w", r.To, unix.ESRCH, unix.ENODEV)
}

// body is struct rtmsg with the route.
func (r Route) body() []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[4], b[5], b[7] = family(r.To.Addr()), byte(r.To.Bits()), unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RTN_UNICAST
	b[6] = unix.RT_SCOPE_UNIVERSE
	if !r.Via.IsValid() && r.To.Addr().Is4() {
		b[6] = unix.RT_SCOPE_LINK
	}
	if r.To.Bits() > 0 {
		b = append(b, netlink.Attribute(unix.RTA_DST, r.To.Masked().Addr().AsSlice())...)
	}
	if r.Via.IsValid() {
		b = append(b, netlink.Attribute(unix.RTA_GATEWAY, r.Via.AsSlice())...)
	}
	b = append(b, netlink.Attribute(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(r.Link)))...)
	if m := r.metric(); m > 0 {
		b = append(b, netlink.Uint32(unix.RTA_PRIORITY, m)...)
	}
	return b
}
