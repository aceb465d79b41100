package vpn

import (
	"context"
	"fmt"
	"time"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/rtnl"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

// Link is the name of the interface.
const Link = "pvn0"

// New returns the resources for the VPN: the key, and once an address was assigned, the interface. A machine that has left
// its VPN has what removes both; one that never was in one has none.
func New(s *desired.State, h *host.Host) []converge.Resource {
	if s.Machine.GetVpn() == nil {
		if !conffile.Exists(h, keyPath) && !conffile.Exists(h, installedPath) {
			return nil
		}
		return []converge.Resource{&left{tunnel: tunnel{host: h}}}
	}
	k := &keyPair{host: h}
	c, err := plan(s)
	switch {
	case err == nil && !c.address.IsValid() && !conffile.Exists(h, installedPath):
		return []converge.Resource{k}
	case err == nil && !c.address.IsValid():
		return []converge.Resource{k, &left{tunnel: tunnel{host: h}, keepKey: true}}
	}
	return []converge.Resource{k, &tunnel{host: h, programs: s.Programs, path: programPath(s), config: c, broken: err}}
}

// keyPair is the machine's key.
type keyPair struct{ host *host.Host }

// Name implements converge.Resource.
func (k *keyPair) Name() string { return "vpn/key" }

// Check implements converge.Resource.
func (k *keyPair) Check(context.Context) (converge.Diff, error) {
	key, err := readKey(k.host)
	if err == nil && key == nil {
		return converge.Diff{Text: keyPath + ": missing"}, nil
	}
	return converge.Diff{}, err
}

// Apply implements converge.Resource.
func (k *keyPair) Apply(context.Context) error {
	key, err := readKey(k.host)
	if err == nil && key == nil {
		_, err = makeKey(k.host)
	}
	return err
}

// Triggers implements converge.Triggered.
func (k *keyPair) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: keyPath}}
}

// tunnel is the interface.
type tunnel struct {
	host     *host.Host
	programs desired.Programs
	// path is where the wanted program is, or will be; empty where no server has one.
	path   string
	config config
	// broken is why there is no config.
	broken error
}

// Name implements converge.Resource.
func (t *tunnel) Name() string { return "vpn/" + Link }

// After implements converge.Ordered.
func (t *tunnel) After() []string { return []string{"vpn/key", "network", "package"} }

// Triggers implements converge.Triggered.
func (t *tunnel) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnNetwork}, {Kind: converge.OnUnit, Name: unit}}
}

// Check implements converge.Resource.
func (t *tunnel) Check(ctx context.Context) (converge.Diff, error) {
	if t.broken != nil {
		return converge.Diff{}, t.broken
	}
	c, err := rtnl.Dial()
	if err != nil {
		return converge.Diff{}, err
	}
	defer c.Close()
	link, found, err := c.Link(Link)
	if err != nil {
		return converge.Diff{}, err
	}
	if !found {
		return converge.Diff{Text: fmt.Sprintf("interface %s: missing, wanted with address %s and %d peers", Link, t.config.address, len(t.config.peers))}, nil
	}
	var diffs []string
	if link.Kind == userspaceKind {
		d, err := t.checkUnit(ctx)
		if err != nil {
			return converge.Diff{}, err
		}
		diffs = append(diffs, d)
	}
	_, d, err := t.checkDevice(link)
	if err != nil {
		return converge.Diff{}, err
	}
	diffs = append(diffs, d)
	n, err := t.differences(c, link)
	if err != nil {
		return converge.Diff{}, err
	}
	f, err := t.checkForwarding()
	if err != nil {
		return converge.Diff{}, err
	}
	return converge.Diff{Text: textdiff.Join(append(diffs, n.text(), f)...)}, nil
}

// checkDevice returns what has to be configured, and shows it.
func (t *tunnel) checkDevice(link rtnl.Link) (deviceChange, string, error) {
	key, err := readKey(t.host)
	if err != nil {
		return deviceChange{}, "", err
	}
	if key == nil {
		return deviceChange{}, "", errs.New(errs.Unavailable, "cannot configure the VPN: the machine has no key yet")
	}
	d, err := readDevice(link)
	if err != nil {
		return deviceChange{}, "", err
	}
	change, lines := t.config.compare(d, key, time.Now())
	if len(lines) == 0 {
		return deviceChange{}, "", nil
	}
	diff := Link + ":"
	for _, line := range lines {
		diff += "\n" + line
	}
	return change, diff, nil
}

// Apply implements converge.Resource. Routes come last: nothing is led into the interface before it works.
func (t *tunnel) Apply(ctx context.Context) error {
	if t.broken != nil {
		return t.broken
	}
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	link, err := t.ensureLink(ctx, c)
	if err != nil {
		return err
	}
	change, d, err := t.checkDevice(link)
	if err != nil {
		return err
	}
	if d != "" {
		if err := configureDevice(link, change); err != nil {
			return err
		}
	}
	n, err := t.differences(c, link)
	if err != nil {
		return err
	}
	if err := n.apply(c); err != nil {
		return err
	}
	return t.applyForwarding()
}

// Guard implements converge.Guarded. Peers that come and go cut nobody off.
func (t *tunnel) Guard() converge.Guard {
	return converge.Guard{Fingerprint: t.config.fingerprint(), Inbound: []uint16{22}}
}

// Undo implements converge.Guarded.
func (t *tunnel) Undo(context.Context) (converge.Undo, error) {
	c, err := rtnl.Dial()
	if err != nil {
		return converge.Undo{}, err
	}
	defer c.Close()
	link, found, err := c.Link(Link)
	if err != nil {
		return converge.Undo{}, err
	}
	if !found {
		saved, err := conffile.Save(t.host, unitPath)
		if err != nil {
			return converge.Undo{}, err
		}
		return converge.Undo{Files: []converge.SavedFile{saved}, Commands: [][]string{
			{"systemctl", "stop", unit}, {"ip", "link", "delete", "dev", Link}, {"systemctl", "daemon-reload"},
		}}, nil
	}
	n, err := t.differences(c, link)
	if err != nil {
		return converge.Undo{}, err
	}
	return converge.Undo{Commands: n.undo()}, nil
}
