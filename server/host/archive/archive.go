package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/provisionr/provisionr/server/host/aptcache"
	"github.com/provisionr/provisionr/server/host/rootfs"
)

// Config of an Archive.
type Config struct {
	// CacheDir holds root file systems, images and packages, shared by all clusters and providers of the host. Default:
	// /var/cache/provisionr.
	CacheDir string
	// AptDir is the host's apt configuration, from which the Debian archive's sources are read. Default: /etc/apt.
	AptDir string
	// CacheBytes bounds the package cache. Default: 8 GiB.
	CacheBytes int64
	// AllowHosts reports whether the apt proxy may ask a host (with its port where it has one) besides those of the host's
	// own sources, by http. It is called for each request and must be fast and safe for concurrent use. Default: none.
	AllowHosts func(host string) bool
	// Progress gets the lines of a build of a root file system. Default: they go to Logger, at level debug.
	Progress func(line string)
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Complete fills in what the configuration leaves out; the logger is for one that has none.
func (c *Config) Complete(logger *slog.Logger) {
	if c.CacheDir == "" {
		c.CacheDir = "/var/cache/provisionr"
	}
	if c.AptDir == "" {
		c.AptDir = "/etc/apt"
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 8 << 30
	}
	if c.Logger == nil {
		c.Logger = logger
	}
}

// Archive is safe for concurrent use, also by several processes.
type Archive struct {
	config Config
	// sources is empty when err says why; machines can be listed and removed all the same.
	sources []rootfs.Source
	err     error
}

// Open reads the host's sources. That it has none of the Debian archive is found when they are needed.
func Open(config Config) *Archive {
	config.Complete(slog.Default())
	a := &Archive{config: config}
	a.sources, a.err = rootfs.HostSources(config.AptDir)
	return a
}

// Proxy returns the caching proxy. On a host without sources of its own it asks what Config.AllowHosts allows.
func (a *Archive) Proxy() (http.Handler, error) {
	hosts := map[string]string{}
	for _, s := range a.sources {
		hosts[s.URL.Host] = s.URL.Scheme
	}
	return aptcache.New(aptcache.Config{
		Dir: filepath.Join(a.config.CacheDir, "apt"), MaxBytes: a.config.CacheBytes, Logger: a.config.Logger,
		Upstream: func(host string) (scheme string, ok bool) {
			if scheme, ok := hosts[host]; ok {
				return scheme, true
			}
			return "http", a.config.AllowHosts != nil && a.config.AllowHosts(host)
		},
	})
}

// Builder builds the recipe's root file system below dir.
func (a *Archive) Builder(dir string, recipe rootfs.Recipe) *rootfs.Builder {
	return &rootfs.Builder{Dir: dir, Recipe: recipe, Sources: a.sources, Progress: a.Progress}
}

// Progress tells of a build.
func (a *Archive) Progress(line string) {
	if a.config.Progress != nil {
		a.config.Progress(line)
		return
	}
	a.config.Logger.Debug("building root file system", "line", line)
}

// Build returns the path of the recipe's root file system below dir and builds it when there is none: one to two minutes.
// Concurrent calls, also of other processes, build once.
func (a *Archive) Build(ctx context.Context, dir string, recipe rootfs.Recipe) (string, error) {
	if a.err != nil {
		return "", a.err
	}
	b := a.Builder(dir, recipe)
	if b.Ready() {
		return b.Path(), nil
	}
	proxy, err := a.Proxy()
	if err != nil {
		return "", err
	}
	// The build goes through the same cache as the machines, on a port of the loopback of its own.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("cannot listen for the build: %w", err)
	}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // it ends by Close
	b.Proxy = "http://" + listener.Addr().String()
	path, err := b.Ensure(ctx)
	err = errors.Join(err, server.Close())
	serving.Wait()
	return path, err
}
