package vpn

import (
	"context"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/rtnl"
)

// left takes the machine out of its VPN: what tunnel made is removed.
type left struct {
	tunnel tunnel
	// keepKey says that the machine only waits for a new address.
	keepKey bool
}

// Name implements converge.Resource.
func (l *left) Name() string { return l.tunnel.Name() }

// Check implements converge.Resource.
func (l *left) Check(context.Context) (converge.Diff, error) {
	if conffile.Exists(l.tunnel.host, installedPath) {
		return converge.Diff{Text: "interface " + Link + ": exists, wanted absent"}, nil
	}
	if !l.keepKey && conffile.Exists(l.tunnel.host, keyPath) {
		return converge.Diff{Text: keyPath + ": exists, wanted absent"}, nil
	}
	return converge.Diff{}, nil
}

// Apply implements converge.Resource. The note that there is something to remove goes last but for the key.
func (l *left) Apply(ctx context.Context) error {
	h := l.tunnel.host
	if conffile.Exists(h, unitPath) {
		if u, err := h.Units.Unit(ctx, unit); err != nil {
			return err
		} else if u.Active != "inactive" {
			if err := h.Units.Stop(ctx, unit); err != nil {
				return err
			}
		}
		if err := conffile.Apply(h, &conffile.File{Path: unitPath, Absent: true}); err != nil {
			return err
		}
		if err := h.Units.DaemonReload(ctx); err != nil {
			return err
		}
	}
	if conffile.Exists(h, installedPath) {
		if err := deleteLink(); err != nil {
			return err
		}
	}
	if err := unforward(h); err != nil {
		return err
	}
	paths := []string{installedPath}
	if !l.keepKey {
		paths = append(paths, keyPath)
	}
	for _, path := range paths {
		if err := conffile.Apply(h, &conffile.File{Path: path, Absent: true}); err != nil {
			return err
		}
	}
	return nil
}

func deleteLink() error {
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	link, found, err := c.Link(Link)
	if err != nil || !found {
		return err
	}
	return c.DeleteLink(link.Index)
}
