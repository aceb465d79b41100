package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/provisionr/provisionr/server/host/cgroup"
	"github.com/provisionr/provisionr/server/provider"
)

// Cleanup removes everything that this cluster made on the host, and DataDir: machines, links, rules, cgroups, and the
// switch for forwarding. It needs no running server, but none may be running. It goes on after an error and reports all
// of them; what could not be removed is removed by the next call.
func (p *Provider) Cleanup(ctx context.Context) error {
	scope, err := cgroup.Of(p.scope, "")
	if err != nil {
		return err
	}
	// A machine may have only a cgroup or only a directory left.
	ids, err := p.machines.Left(scope.Dir)
	if err != nil {
		return provider.Errorf(provider.Unknown, "cannot clean up: %w", err)
	}
	var failed error
	for _, id := range ids {
		failed = errors.Join(failed, p.Terminate(ctx, id, ""))
	}
	failed = errors.Join(failed, scope.Destroy(ctx), p.networks.Remove(ctx))
	if failed != nil {
		return fmt.Errorf("cannot clean up: %w", failed)
	}
	failed = p.machines.Close()
	// DataDir itself may hold more than ours.
	_ = os.Remove(filepath.Clean(p.config.DataDir))
	return failed
}
