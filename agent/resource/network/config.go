package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/rtnl"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// config is what an interface has, or shall have, from us.
type config struct {
	// MTU 0 leaves it as it is.
	MTU       int            `json:"mtu,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Routes    []route        `json:"routes,omitempty"`
}

type route struct {
	To     netip.Prefix `json:"to"`
	Via    netip.Addr   `json:"via"`
	Metric uint32       `json:"metric,omitempty"`
}

func (c config) empty() bool { return c.MTU == 0 && len(c.Addresses) == 0 && len(c.Routes) == 0 }

// parse takes the desired state's strings once.
func parse(n *agentv1.Networking) (config, error) {
	c := config{MTU: int(n.GetMtu())}
	for _, text := range n.GetAddresses() {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Zone() != "" {
			return config{}, errs.New(errs.Invalid, "cannot use address %q of networking", text)
		}
		c.Addresses = append(c.Addresses, p)
	}
	for _, r := range n.GetRoutes() {
		to, err := netip.ParsePrefix(r.To)
		via, err2 := netip.ParseAddr(r.Via)
		if err != nil || err2 != nil || to.Addr().Is4() != via.Is4() || via.Zone() != "" {
			return config{}, errs.New(errs.Invalid, "cannot use route to %q via %q of networking", r.To, r.Via)
		}
		c.Routes = append(c.Routes, route{to.Masked(), via, r.Metric})
	}
	return c, nil
}

func (r route) on(link int) rtnl.Route {
	return rtnl.Route{To: r.To, Via: r.Via, Link: link, Metric: r.Metric}
}

// words are the route in the language of ip-route(8).
func (r route) words(link string) []string {
	w := []string{r.To.String(), "via", r.Via.String(), "dev", link}
	if r.Metric > 0 {
		w = append(w, "metric", fmt.Sprint(r.Metric))
	}
	return w
}

// note is what was added to an interface, kept on disk.
type note struct {
	Link string `json:"link"`
	// File that was written for its manager.
	File string `json:"file,omitempty"`
	// OldMTU is what the interface had before ours.
	OldMTU int `json:"old_mtu,omitempty"`
	config
}

const (
	notePath = conffile.StateDir + "/network.json"
	maxNote  = 256 << 10
)

func readNote(h *host.Host) (note, error) {
	var n note
	content, err := conffile.Read(h, notePath, maxNote)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(content, &n); err != nil {
		return note{}, errs.New(errs.Internal, "cannot read %s: %w", notePath, err).WithHint("remove it: what was added before is then left as it is")
	}
	return n, nil
}

func writeNote(h *host.Host, n note) error {
	if n.Link == "" {
		return conffile.Apply(h, &conffile.File{Path: notePath, Absent: true})
	}
	content, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return conffile.Apply(h, &conffile.File{Path: notePath, Content: append(content, '\n'), Mode: 0o600})
}

// live is what an interface has now.
type live struct {
	link      rtnl.Link
	addresses []netip.Prefix
	routes    []rtnl.Route
}

// change is what has to be done to an interface.
type change struct {
	// mtu 0 changes nothing.
	mtu                        int
	newAddresses, oldAddresses []netip.Prefix
	newRoutes, oldRoutes       []route
}

// diff decides what makes an interface as desired. What was noted and is not desired any more goes; what is neither stays.
func diff(now live, want config, before note) change {
	var c change
	mtu := want.MTU
	if mtu == 0 && before.MTU != 0 && now.link.MTU == before.MTU {
		mtu = before.OldMTU
	}
	if mtu != 0 && mtu != now.link.MTU {
		c.mtu = mtu
	}
	for _, a := range want.Addresses {
		if !slices.Contains(now.addresses, a) {
			c.newAddresses = append(c.newAddresses, a)
		}
	}
	for _, a := range before.Addresses {
		if !slices.Contains(want.Addresses, a) && slices.Contains(now.addresses, a) {
			c.oldAddresses = append(c.oldAddresses, a)
		}
	}
	has := func(r route) bool { return slices.ContainsFunc(now.routes, r.on(now.link.Index).Same) }
	for _, r := range want.Routes {
		if !has(r) {
			c.newRoutes = append(c.newRoutes, r)
		}
	}
	for _, r := range before.Routes {
		if !slices.Contains(want.Routes, r) && has(r) {
			c.oldRoutes = append(c.oldRoutes, r)
		}
	}
	return c
}

func (c change) text(now live) string {
	var lines []string
	if c.mtu != 0 {
		lines = append(lines, fmt.Sprintf("-mtu %d", now.link.MTU), fmt.Sprintf("+mtu %d", c.mtu))
	}
	for _, a := range c.oldAddresses {
		lines = append(lines, "-address "+a.String())
	}
	for _, a := range c.newAddresses {
		lines = append(lines, "+address "+a.String())
	}
	for _, r := range c.oldRoutes {
		lines = append(lines, "-route "+strings.Join(r.words(now.link.Name), " "))
	}
	for _, r := range c.newRoutes {
		lines = append(lines, "+route "+strings.Join(r.words(now.link.Name), " "))
	}
	if len(lines) == 0 {
		return ""
	}
	return "interface " + now.link.Name + ":\n" + strings.Join(lines, "\n")
}

// undo returns the commands that take a change back, in the opposite order.
func (c change) undo(now live) [][]string {
	var all [][]string
	name := now.link.Name
	for _, r := range c.newRoutes {
		all = append(all, append([]string{"ip", "route", "del"}, r.words(name)...))
	}
	for _, a := range c.newAddresses {
		all = append(all, []string{"ip", "address", "del", a.String(), "dev", name})
	}
	if c.mtu != 0 {
		all = append(all, []string{"ip", "link", "set", "dev", name, "mtu", fmt.Sprint(now.link.MTU)})
	}
	for _, a := range c.oldAddresses {
		all = append(all, []string{"ip", "address", "replace", a.String(), "dev", name})
	}
	for _, r := range c.oldRoutes {
		all = append(all, append([]string{"ip", "route", "replace"}, r.words(name)...))
	}
	return all
}

// apply makes the change. Routes that go, go first; those that come, come last, when their routers are reachable.
func (c change) apply(conn *rtnl.Conn, link int) error {
	for _, r := range c.oldRoutes {
		if err := conn.DeleteRoute(r.on(link)); err != nil {
			return err
		}
	}
	for _, a := range c.oldAddresses {
		if err := conn.DeleteAddress(rtnl.Address{Link: link, Prefix: a}); err != nil {
			return err
		}
	}
	if c.mtu != 0 {
		if err := conn.SetMTU(link, c.mtu); err != nil {
			return err
		}
	}
	for _, a := range c.newAddresses {
		if err := conn.AddAddress(rtnl.Address{Link: link, Prefix: a}); err != nil {
			return err
		}
	}
	for _, r := range c.newRoutes {
		if err := conn.AddRoute(r.on(link)); err != nil {
			return errs.New(errs.Conflict, "%w", err).WithHint("see that %s is a neighbour on the machine's own interface, and no other route to %s has metric %d", r.Via, r.To, r.Metric)
		}
	}
	return nil
}
