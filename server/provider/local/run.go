package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/internal/ntp"
	"github.com/provisionr/provisionr/server/provider/local/aptcache"
	"github.com/provisionr/provisionr/server/provider/local/rootfs"
)

// Prepare returns the path of the machines' root file system and builds it when there is none: one to two minutes, with
// lines to Config.Progress. Concurrent calls, also of other processes, build once.
func (p *Provider) Prepare(ctx context.Context) (string, error) {
	if p.sourcesErr != nil {
		return "", p.sourcesErr
	}
	b := p.builder()
	if b.Ready() {
		return b.Path(), nil
	}
	cache, err := p.packageCache()
	if err != nil {
		return "", err
	}
	// The build goes through the same cache as the machines, on a port of the loopback of its own.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("cannot listen for the build: %w", err)
	}
	server := &http.Server{Handler: cache, ReadHeaderTimeout: 10 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // it ends by Close
	b.Proxy = "http://" + listener.Addr().String()
	path, err := b.Ensure(ctx)
	err = errors.Join(err, server.Close())
	serving.Wait()
	return path, err
}

func (p *Provider) builder() *rootfs.Builder {
	return &rootfs.Builder{Dir: filepath.Join(p.config.CacheDir, "rootfs"), Sources: p.sources, Progress: p.progress}
}

func (p *Provider) progress(line string) {
	if p.config.Progress != nil {
		p.config.Progress(line)
		return
	}
	p.log.Debug("building root file system", "line", line)
}

func (p *Provider) packageCache() (*aptcache.Cache, error) {
	hosts := map[string]string{}
	for _, s := range p.sources {
		hosts[s.URL.Host] = s.URL.Scheme
	}
	return aptcache.New(aptcache.Config{
		Dir: filepath.Join(p.config.CacheDir, "apt"), MaxBytes: p.config.CacheBytes, Logger: p.log,
		Upstream: func(host string) (scheme string, ok bool) {
			if scheme, ok := hosts[host]; ok {
				return scheme, true
			}
			return "http", p.config.AllowHosts != nil && p.config.AllowHosts(host)
		},
	})
}

// Run serves on the gateways of all networks, present and future, until ctx ends: the package proxy and the time. Networks
// that it finds in DataDir are made anew first, so that machines work again after the host lost them. A service that
// cannot listen is tried again every ten seconds. Run also builds the root file system when there is none, for a Launch
// may have less time than that takes.
func (p *Provider) Run(ctx context.Context) error {
	if p.sourcesErr != nil {
		return p.sourcesErr
	}
	cache, err := p.packageCache()
	if err != nil {
		return err
	}
	p.restore(ctx)
	var services sync.WaitGroup
	defer services.Wait()
	services.Go(func() {
		if _, err := p.Prepare(ctx); err != nil && ctx.Err() == nil {
			p.log.ErrorContext(ctx, "cannot build root file system", "error", err)
		}
	})
	running := map[string]network{}
	for {
		p.mu.Lock()
		networks, changed := maps.Clone(p.networks), p.changed
		p.mu.Unlock()
		for name, n := range networks {
			if running[name] == n {
				continue
			}
			running[name] = n
			services.Go(func() { p.keep(ctx, "package proxy", n, func() error { return serveProxy(ctx, cache, n) }) })
			services.Go(func() { p.keep(ctx, "time server", n, func() error { return serveTime(ctx, n) }) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// restore makes the recorded networks, each for itself.
func (p *Provider) restore(ctx context.Context) {
	p.mu.Lock()
	networks := maps.Clone(p.networks)
	p.mu.Unlock()
	for _, n := range networks {
		lock, err := lockFile(ctx, p.networkLock())
		if err != nil {
			return // ctx has ended
		}
		if err := p.ensure(ctx, n); err != nil && ctx.Err() == nil {
			p.log.ErrorContext(ctx, "cannot restore network", "network", n.Name, "error", err)
		}
		lock.release()
	}
}

// keep runs a service again and again until ctx ends.
func (p *Provider) keep(ctx context.Context, name string, n network, serve func() error) {
	const pause = 10 * time.Second
	for {
		err := serve()
		if ctx.Err() != nil {
			return
		}
		p.log.ErrorContext(ctx, "service of a local network failed", "service", name, "network", n.Name, "gateway", n.Gateway, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func serveProxy(ctx context.Context, cache http.Handler, n network) error {
	listener, err := net.Listen("tcp4", netip.AddrPortFrom(n.Gateway, proxyPort).String())
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: onlyFrom(n.Prefix, cache), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return server.Serve(listener)
}

// onlyFrom refuses clients from outside the network: they might reach the gateway's address through another interface.
func onlyFrom(prefix netip.Prefix, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !prefix.Contains(client.Addr()) {
			http.Error(w, "only for machines of the local network", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func serveTime(ctx context.Context, n network) error {
	// With SO_REUSEADDR the port can be had beside a time daemon of the host that has it on all addresses and shares it.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return errors.Join(err, failed)
	}}
	conn, err := config.ListenPacket(ctx, "udp4", netip.AddrPortFrom(n.Gateway, ntp.Port).String())
	if err != nil {
		return err
	}
	return (&ntp.Responder{}).Serve(ctx, conn)
}
