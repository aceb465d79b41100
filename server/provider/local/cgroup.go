package local

import (
	"os"
	"path/filepath"

	"github.com/provisionr/provisionr/server/host/cgroup"
)

// group is a machine's cgroup. Below it, payload has the machine's own processes and is delegated to its root; aux has what
// the host runs inside for it, for a cgroup with controllers may have no processes of its own.
type group struct{ cgroup.Group }

func (g group) payload() string { return filepath.Join(g.Dir, "payload") }
func (g group) aux() string     { return filepath.Join(g.Dir, "aux") }

func (p *Provider) machineCgroup(id string) (group, error) {
	g, err := cgroup.Of(p.scope, id)
	return group{g}, err
}

// create makes the directories, delegates the payload to root inside, and sets the limits.
func (g group) create(owner int, l cgroup.Limits) error {
	if err := g.Create(l); err != nil {
		return err
	}
	for _, dir := range []string{g.payload(), g.aux()} {
		if _, err := g.Below(filepath.Base(dir)); err != nil {
			return err
		}
	}
	for _, name := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
		if err := os.Chown(filepath.Join(g.payload(), name), owner, owner); err != nil {
			return err
		}
	}
	return nil
}
