package local

import (
	"context"
	"path/filepath"
	"sync"

	"github.com/provisionr/provisionr/server/host/rootfs"
)

// Prepare returns the path of the machines' root file system and builds it when there is none: one to two minutes, with
// lines to Config.Progress. Concurrent calls, also of other processes, build once.
func (p *Provider) Prepare(ctx context.Context) (string, error) {
	return p.archive.Build(ctx, p.rootfsDir(), rootfs.Container())
}

func (p *Provider) rootfsDir() string { return filepath.Join(p.config.Archive.CacheDir, "rootfs") }

// Run serves on the gateways of all networks, present and future, until ctx ends: the package proxy and the time. Networks
// that it finds in DataDir are made anew first, so that machines work again after the host lost them. A service that
// cannot listen is tried again every ten seconds. Run also builds the root file system when there is none, for a Launch
// may have less time than that takes.
func (p *Provider) Run(ctx context.Context) error {
	proxy, err := p.archive.Proxy()
	if err != nil {
		return err
	}
	var building sync.WaitGroup
	defer building.Wait()
	building.Go(func() {
		if _, err := p.Prepare(ctx); err != nil && ctx.Err() == nil {
			p.log.ErrorContext(ctx, "cannot build root file system", "error", err)
		}
	})
	p.networks.Serve(ctx, proxy)
	return nil
}
