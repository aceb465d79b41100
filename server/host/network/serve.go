package network

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/internal/ntp"
	"github.com/provisionr/provisionr/server/host/files"
)

// Serve serves on the gateways of all networks, present and future, until ctx ends: the package proxy and the time.
// Networks that are recorded are made anew first, so that machines work again after the host lost them. A service that
// cannot listen is tried again every ten seconds.
func (m *Manager) Serve(ctx context.Context, proxy http.Handler) {
	m.restore(ctx)
	var services sync.WaitGroup
	defer services.Wait()
	running := map[string]Network{}
	for {
		m.mu.Lock()
		networks, changed := maps.Clone(m.networks), m.changed
		m.mu.Unlock()
		for name, n := range networks {
			if running[name] == n {
				continue
			}
			running[name] = n
			services.Go(func() { m.keep(ctx, "package proxy", n, func() error { return serveProxy(ctx, proxy, n) }) })
			services.Go(func() { m.keep(ctx, "time server", n, func() error { return serveTime(ctx, n) }) })
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// restore makes the recorded networks, each for itself.
func (m *Manager) restore(ctx context.Context) {
	m.mu.Lock()
	networks := maps.Clone(m.networks)
	m.mu.Unlock()
	for _, n := range networks {
		lock, err := files.Acquire(ctx, m.lock(), nil)
		if err != nil {
			return // ctx has ended
		}
		if err := m.ensure(ctx, n); err != nil && ctx.Err() == nil {
			m.config.Logger.ErrorContext(ctx, "cannot restore network", "network", n.Name, "error", err)
		}
		lock.Release()
	}
}

// keep runs a service again and again until ctx ends.
func (m *Manager) keep(ctx context.Context, name string, n Network, serve func() error) {
	const pause = 10 * time.Second
	for {
		err := serve()
		if ctx.Err() != nil {
			return
		}
		m.config.Logger.ErrorContext(ctx, "service of a network failed", "service", name, "network", n.Name, "gateway", n.Gateway, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func serveProxy(ctx context.Context, cache http.Handler, n Network) error {
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
			http.Error(w, "only for machines of the network", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func serveTime(ctx context.Context, n Network) error {
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
