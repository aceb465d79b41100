package vpn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/resource/internal/rtnl"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	kernelKind    = "wireguard"
	userspaceKind = "tun"
	// routeMetric keeps our routes apart from those of the system: none of theirs is replaced, and their shorter ones win.
	routeMetric = 51
)

// ensureLink makes the interface: the kernel's, or where the kernel has none, that of our program.
func (t *tunnel) ensureLink(ctx context.Context, c *rtnl.Conn) (rtnl.Link, error) {
	if err := t.markInstalled(); err != nil {
		return rtnl.Link{}, err
	}
	link, found, err := c.Link(Link)
	if err != nil {
		return rtnl.Link{}, err
	}
	if !found {
		err = c.AddLink(Link, kernelKind)
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = t.startProgram(ctx)
		}
	} else if link.Kind == userspaceKind {
		err = t.keepProgram(ctx)
	}
	if err != nil {
		return rtnl.Link{}, err
	}
	link, found, err = c.Link(Link)
	if err == nil && !found {
		err = errs.New(errs.Internal, "cannot make interface %s: it is not there although %s runs", Link, unit)
	}
	return link, err
}

// network is what differs of the interface beside WireGuard itself.
type network struct {
	link                       rtnl.Link
	mtu                        int
	newAddresses, oldAddresses []rtnl.Address
	newRoutes, oldRoutes       []rtnl.Route
}

// differences compares the interface with what is desired. All addresses and routes of it are ours, but for those of the kernel.
func (t *tunnel) differences(c *rtnl.Conn, link rtnl.Link) (*network, error) {
	n := &network{link: link, mtu: t.config.mtu}
	addresses, err := c.Addresses()
	if err != nil {
		return nil, err
	}
	want := rtnl.Address{Link: link.Index, Prefix: t.config.address}
	if !slices.Contains(addresses, want) {
		n.newAddresses = append(n.newAddresses, want)
	}
	for _, a := range addresses {
		if a.Link == link.Index && a != want && !a.Prefix.Addr().IsLinkLocalUnicast() {
			n.oldAddresses = append(n.oldAddresses, a)
		}
	}
	routes, err := c.Routes()
	if err != nil {
		return nil, err
	}
	for _, to := range t.config.routes {
		r := rtnl.Route{To: to, Link: link.Index, Metric: routeMetric}
		if !slices.ContainsFunc(routes, r.Same) {
			n.newRoutes = append(n.newRoutes, r)
		}
	}
	for _, r := range routes {
		if r.Link == link.Index && !r.Kernel && !slices.Contains(t.config.routes, r.To) {
			n.oldRoutes = append(n.oldRoutes, r)
		}
	}
	return n, nil
}

func (n *network) text() string {
	var lines []string
	if n.link.MTU != n.mtu {
		lines = append(lines, fmt.Sprintf("-mtu %d", n.link.MTU), fmt.Sprintf("+mtu %d", n.mtu))
	}
	if !n.link.Up {
		lines = append(lines, "-down", "+up")
	}
	for _, a := range n.oldAddresses {
		lines = append(lines, "-address "+a.Prefix.String())
	}
	for _, a := range n.newAddresses {
		lines = append(lines, "+address "+a.Prefix.String())
	}
	for _, r := range n.oldRoutes {
		lines = append(lines, "-route "+r.To.String())
	}
	for _, r := range n.newRoutes {
		lines = append(lines, "+route "+r.To.String())
	}
	if len(lines) == 0 {
		return ""
	}
	return "interface " + Link + ":\n" + strings.Join(lines, "\n")
}

func (n *network) apply(c *rtnl.Conn) error {
	for _, r := range n.oldRoutes {
		if err := c.DeleteRoute(r); err != nil {
			return err
		}
	}
	for _, a := range n.oldAddresses {
		if err := c.DeleteAddress(a); err != nil {
			return err
		}
	}
	if n.link.MTU != n.mtu {
		if err := c.SetMTU(n.link.Index, n.mtu); err != nil {
			return err
		}
	}
	for _, a := range n.newAddresses {
		if err := c.AddAddress(a); err != nil {
			return err
		}
	}
	if !n.link.Up {
		if err := c.SetUp(n.link.Index); err != nil {
			return err
		}
	}
	for _, r := range n.newRoutes {
		if err := c.AddRoute(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

// undo returns the commands that bring back what differs, in the opposite order.
func (n *network) undo() [][]string {
	var all [][]string
	route := func(verb string, r rtnl.Route) {
		all = append(all, []string{"ip", "route", verb, r.To.String(), "dev", Link, "metric", strconv.Itoa(int(r.Metric))})
	}
	address := func(verb string, p netip.Prefix) {
		all = append(all, []string{"ip", "address", verb, p.String(), "dev", Link})
	}
	for _, r := range n.newRoutes {
		route("del", r)
	}
	for _, a := range n.newAddresses {
		address("del", a.Prefix)
	}
	if n.link.MTU != n.mtu {
		all = append(all, []string{"ip", "link", "set", "dev", Link, "mtu", strconv.Itoa(n.link.MTU)})
	}
	for _, a := range n.oldAddresses {
		address("add", a.Prefix)
	}
	for _, r := range n.oldRoutes {
		route("add", r)
	}
	return all
}
