package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/rtnl"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

// maxFact bounds what is read of a manager's file.
const maxFact = 256 << 10

// New returns the resource for the machine's own interface; none where nothing is asked of it and nothing was.
func New(s *desired.State, h *host.Host) []converge.Resource {
	want, err := parse(s.Pool.GetNetworking())
	if err == nil && want.empty() && !conffile.Exists(h, notePath) {
		return nil
	}
	return []converge.Resource{&network{host: h, address: s.Machine.GetAddress(), want: want, broken: err}}
}

type network struct {
	host *host.Host
	// address tells which interface is the machine's own.
	address string
	want    config
	// broken is why there is no config.
	broken error
}

// Name implements converge.Resource.
func (n *network) Name() string { return "network/own" }

// Triggers implements converge.Triggered.
func (n *network) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnNetwork}, {Kind: converge.OnFile, Name: notePath}}
}

// situation is all that a change depends on.
type situation struct {
	now    live
	before note
	file   *conffile.File
	change change
}

// look asks kernel and files.
func (n *network) look(c *rtnl.Conn) (*situation, error) {
	if n.broken != nil {
		return nil, n.broken
	}
	before, err := readNote(n.host)
	if err != nil {
		return nil, err
	}
	now, err := own(c, n.address, before.Link)
	if err != nil {
		return nil, err
	}
	f, err := n.facts(now.link)
	if err != nil {
		return nil, err
	}
	m, file := detect(f)
	return &situation{now: now, before: before, file: m.file(file, now.link.Name, n.want), change: diff(now, n.want, before)}, nil
}

// own finds the interface that has the machine's address, or the one that was changed before.
func own(c *rtnl.Conn, address, name string) (live, error) {
	links, err := c.Links()
	if err != nil {
		return live{}, err
	}
	addresses, err := c.Addresses()
	if err != nil {
		return live{}, err
	}
	i := slices.IndexFunc(addresses, func(a rtnl.Address) bool { return a.Prefix.Addr().String() == address })
	l := slices.IndexFunc(links, func(l rtnl.Link) bool { return i >= 0 && l.Index == addresses[i].Link || i < 0 && l.Name == name })
	if l < 0 {
		return live{}, errs.New(errs.Unavailable, "cannot find the machine's own interface: none has address %q", address)
	}
	now := live{link: links[l]}
	for _, a := range addresses {
		if a.Link == now.link.Index {
			now.addresses = append(now.addresses, a.Prefix)
		}
	}
	now.routes, err = c.Routes()
	return now, err
}

func (n *network) facts(l rtnl.Link) (facts, error) {
	f := facts{name: l.Name}
	for path, to := range map[string]*string{
		fmt.Sprintf("/run/systemd/netif/links/%d", l.Index):    &f.networkd,
		fmt.Sprintf("/run/NetworkManager/devices/%d", l.Index): &f.networkManager,
		"/etc/network/interfaces":                              &f.interfaces,
		"/run/network/ifstate":                                 &f.ifstate,
	} {
		b, err := conffile.Read(n.host, path, maxFact)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return facts{}, err
		}
		*to = string(b)
	}
	more, err := conffile.List(n.host, "/etc/network/interfaces.d", "*")
	if err != nil {
		return facts{}, err
	}
	for _, name := range more {
		b, err := conffile.Read(n.host, "/etc/network/interfaces.d/"+name, maxFact)
		if err != nil {
			return facts{}, err
		}
		f.interfaces += "\n" + string(b)
	}
	return f, nil
}

// Check implements converge.Resource.
func (n *network) Check(context.Context) (converge.Diff, error) {
	c, err := rtnl.Dial()
	if err != nil {
		return converge.Diff{}, err
	}
	defer c.Close()
	s, err := n.look(c)
	if err != nil {
		return converge.Diff{}, err
	}
	diffs := []string{s.change.text(s.now)}
	if s.file != nil {
		d, err := conffile.Check(n.host, s.file, &conffile.Seen{})
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, d)
	}
	if s.stray() {
		diffs = append(diffs, s.before.File+": exists, wanted absent")
	}
	if len(strings.Join(diffs, "")) == 0 && !s.noted(n.want) {
		diffs = append(diffs, "what was added to the interface is not noted")
	}
	return converge.Diff{Text: textdiff.Join(diffs...)}, nil
}

// stray reports whether a file is left from another manager.
func (s *situation) stray() bool {
	return s.before.File != "" && (s.file == nil || s.file.Path != s.before.File)
}

// noted reports whether the note is what it shall be after a change.
func (s *situation) noted(want config) bool {
	after := s.after(want)
	b := s.before
	return b.Link == after.Link && b.File == after.File && b.OldMTU == after.OldMTU && b.MTU == after.MTU &&
		slices.Equal(b.Addresses, after.Addresses) && slices.Equal(b.Routes, after.Routes)
}

// after is the note when the change was made. What was there before us is the provider's, and stays when the manifest forgets it.
func (s *situation) after(want config) note {
	if want.empty() {
		return note{}
	}
	a := note{Link: s.now.link.Name, config: config{MTU: want.MTU}}
	if s.file != nil {
		a.File = s.file.Path
	}
	if want.MTU != 0 {
		if a.OldMTU = s.before.OldMTU; a.OldMTU == 0 {
			a.OldMTU = s.now.link.MTU
		}
	}
	d := s.during(want)
	for _, x := range want.Addresses {
		if slices.Contains(d.Addresses, x) {
			a.Addresses = append(a.Addresses, x)
		}
	}
	for _, x := range want.Routes {
		if slices.Contains(d.Routes, x) {
			a.Routes = append(a.Routes, x)
		}
	}
	return a
}

// during is the note while a change is made: all that may be there of us.
func (s *situation) during(want config) note {
	d := note{Link: s.now.link.Name, File: s.before.File, OldMTU: s.before.OldMTU, config: config{MTU: want.MTU}}
	if d.MTU == 0 {
		d.MTU = s.before.MTU
	}
	if d.MTU != 0 && d.OldMTU == 0 {
		d.OldMTU = s.now.link.MTU
	}
	if d.File == "" && s.file != nil {
		d.File = s.file.Path
	}
	d.Addresses, d.Routes = slices.Clone(s.before.Addresses), slices.Clone(s.before.Routes)
	for _, a := range s.change.newAddresses {
		if !slices.Contains(d.Addresses, a) {
			d.Addresses = append(d.Addresses, a)
		}
	}
	for _, r := range s.change.newRoutes {
		if !slices.Contains(d.Routes, r) {
			d.Routes = append(d.Routes, r)
		}
	}
	return d
}

// Apply implements converge.Resource.
func (n *network) Apply(context.Context) error {
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := n.look(c)
	if err != nil {
		return err
	}
	if err := writeNote(n.host, s.during(n.want)); err != nil {
		return err
	}
	if err := s.change.apply(c, s.now.link.Index); err != nil {
		return err
	}
	if s.stray() {
		if err := conffile.Apply(n.host, &conffile.File{Path: s.before.File, Absent: true}); err != nil {
			return err
		}
	}
	if s.file != nil {
		if err := conffile.Apply(n.host, s.file); err != nil {
			return err
		}
	}
	return writeNote(n.host, s.after(n.want))
}

// Guard implements converge.Guarded.
func (n *network) Guard() converge.Guard {
	return converge.Guard{Fingerprint: fmt.Sprintf("mtu %d addresses %v routes %v", n.want.MTU, n.want.Addresses, n.want.Routes), Inbound: []uint16{22}}
}

// Undo implements converge.Guarded.
func (n *network) Undo(context.Context) (converge.Undo, error) {
	c, err := rtnl.Dial()
	if err != nil {
		return converge.Undo{}, err
	}
	defer c.Close()
	s, err := n.look(c)
	if err != nil {
		return converge.Undo{}, err
	}
	u := converge.Undo{Commands: s.change.undo(s.now)}
	paths := []string{notePath}
	if s.file != nil {
		paths = append(paths, s.file.Path)
	}
	if s.stray() {
		paths = append(paths, s.before.File)
	}
	for _, path := range paths {
		saved, err := conffile.Save(n.host, path)
		if err != nil {
			return converge.Undo{}, err
		}
		u.Files = append(u.Files, saved)
	}
	return u, nil
}
