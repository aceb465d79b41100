package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/provisionr/provisionr/server/provider"
)

// Cleanup removes everything that this cluster made on the host, and DataDir: machines, links, rules, cgroups, and the
// switch for forwarding. It needs no running server, but none may be running. It goes on after an error and reports all
// of them; what could not be removed is removed by the next call.
func (p *Provider) Cleanup(ctx context.Context) error {
	machines := map[string]bool{}
	group, err := p.clusterCgroup()
	if err != nil {
		return err
	}
	// A machine may have only a cgroup or only a directory left.
	for _, dir := range []string{p.machinesDir(), group} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return provider.Errorf(provider.Unknown, "cannot clean up: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() && idPattern.MatchString(e.Name()) {
				machines[e.Name()] = true
			}
		}
	}
	var failed error
	for id := range machines {
		failed = errors.Join(failed, p.Terminate(ctx, id, ""))
	}
	table := tableName(p.config.ClusterID)
	failed = errors.Join(failed,
		(cgroup{group}).destroy(ctx),
		removeLinks(table),
		removeRules(ctx, table),
		releaseSysctls(ctx, p.config.ClusterID),
	)
	if failed != nil {
		return fmt.Errorf("cannot clean up: %w", failed)
	}
	for _, dir := range []string{p.machinesDir(), p.networksDir(), p.locksDir(), p.networkLock()} {
		failed = errors.Join(failed, os.RemoveAll(dir))
	}
	// DataDir itself may hold more than ours.
	_ = os.Remove(filepath.Clean(p.config.DataDir))
	return failed
}
