package aptcache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

// Config of a Cache.
type Config struct {
	// Dir holds the stored files; it is created. Several processes may share it.
	Dir string
	// MaxBytes bounds Dir. Required.
	MaxBytes int64
	// Upstream says whether a host (with its port where it has one) may be asked, and by http or https. Required.
	Upstream func(host string) (scheme string, ok bool)
	// Client fetches. Default: one that honours HTTP_PROXY and HTTPS_PROXY of the environment.
	Client *http.Client
	// Logger is required.
	Logger *slog.Logger
}

// Cache is the proxy, as an http.Handler for absolute request URLs.
type Cache struct {
	config Config

	// mu guards the fetches that are under way, by stored name.
	mu      sync.Mutex
	fetches map[string]*fetch
}

// headerTimeout bounds the wait for upstream's answer, idleTimeout the wait for its next bytes.
const (
	headerTimeout = 60 * time.Second
	idleTimeout   = 60 * time.Second
)

// New makes the directory and brings it within its bound.
func New(config Config) (*Cache, error) {
	if config.MaxBytes <= 0 || config.Upstream == nil || config.Logger == nil {
		return nil, errs.New(errs.Invalid, "cannot make package cache: incomplete configuration")
	}
	if err := os.MkdirAll(config.Dir, 0o755); err != nil {
		return nil, errs.New(errs.Internal, "cannot make package cache: %w", err)
	}
	if config.Client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.ResponseHeaderTimeout = headerTimeout
		transport.MaxConnsPerHost = 16
		// Index files are stored as they are named: decompressed they would be others.
		transport.DisableCompression = true
		config.Client = &http.Client{Transport: transport}
	}
	c := &Cache{config: config, fetches: map[string]*fetch{}}
	return c, c.evict()
}

// ServeHTTP implements http.Handler.
func (c *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		http.Error(w, "this proxy caches packages and opens no tunnels: write the repository's URI with http:// "+
			"(its signature protects it), or let apt ask it directly (Acquire::https::Proxy \"DIRECT\";)", http.StatusForbidden)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this proxy only gets", http.StatusMethodNotAllowed)
		return
	case !r.URL.IsAbs() || r.URL.Scheme != "http" || r.URL.User != nil:
		http.Error(w, "this is a proxy for http", http.StatusBadRequest)
		return
	}
	scheme, ok := c.config.Upstream(r.URL.Host)
	if !ok {
		http.Error(w, fmt.Sprintf("this proxy may not ask %s: it is no host of the repositories", r.URL.Host), http.StatusForbidden)
		return
	}
	target := *r.URL
	target.Scheme, target.Fragment, target.RawFragment = scheme, "", ""
	if r.Method == http.MethodGet && immutable(&target) {
		c.serveStored(w, r, &target)
		return
	}
	c.pass(w, r, &target)
}

// immutable reports whether the content under the URL can never change: a version's package, or a by-hash index (Debian
// repository format, "indices acquisition via hashsums").
func immutable(u *url.URL) bool {
	if u.RawQuery != "" || path.Clean(u.Path) != u.Path {
		return false
	}
	return strings.HasSuffix(u.Path, ".deb") || strings.Contains(u.Path, "/by-hash/")
}

// storedName is a file name for the URL: its hash, and the end of its path for a person who looks.
func storedName(u *url.URL) string {
	sum := sha256.Sum256([]byte(u.Host + u.EscapedPath()))
	base := strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r == '-' || r == '+' || r == '~' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, path.Base(u.Path))
	return hex.EncodeToString(sum[:16]) + "-" + base[max(0, len(base)-100):]
}

// serveStored answers from the store, or from the one fetch that fills it.
func (c *Cache) serveStored(w http.ResponseWriter, r *http.Request, target *url.URL) {
	name := storedName(target)
	file := filepath.Join(c.config.Dir, name)
	if f, err := os.Open(file); err == nil {
		defer func() { _ = f.Close() }() // only read
		now := time.Now()
		_ = os.Chtimes(file, now, now) // when it was last used; that it is late evicts it early, no more
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
		return
	}
	c.mu.Lock()
	f, ok := c.fetches[name]
	if !ok {
		f = newFetch()
		c.fetches[name] = f
		// It goes on when the first client leaves: others may have joined, and the next one finds it stored.
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
		go func() {
			defer cancel(nil)
			err := c.fetch(ctx, cancel, f, target, name)
			c.mu.Lock() // who found it has joined by now; who comes later finds the stored file
			delete(c.fetches, name)
			c.mu.Unlock()
			f.finish(err)
			if err := c.evict(); err != nil {
				c.config.Logger.Warn("cannot bound package cache", "error", err)
			}
		}()
	}
	f.join()
	c.mu.Unlock()
	defer f.leave()
	f.copyTo(w, r)
}

// fetch gets the target into the store while f's readers follow.
func (c *Cache) fetch(ctx context.Context, cancel context.CancelCauseFunc, f *fetch, target *url.URL, name string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	response, err := c.config.Client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read to its end or of no use
	if response.StatusCode != http.StatusOK {
		return &statusError{response.StatusCode}
	}
	temp, err := os.CreateTemp(c.config.Dir, ".part-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // renamed when all went well
	if err := f.begin(temp.Name(), response.ContentLength); err != nil {
		return errors.Join(err, temp.Close())
	}
	watchdog := time.AfterFunc(idleTimeout, func() { cancel(errors.New("upstream is silent")) })
	defer watchdog.Stop()
	n, err := io.Copy(io.MultiWriter(temp, progress(func(n int) { watchdog.Reset(idleTimeout); f.advance(n) })), response.Body)
	if err == nil && response.ContentLength >= 0 && n != response.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err := errors.Join(err, context.Cause(ctx), temp.Chmod(0o644), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), filepath.Join(c.config.Dir, name))
}

// progress is told how much was written.
type progress func(n int)

func (p progress) Write(data []byte) (int, error) {
	p(len(data))
	return len(data), nil
}

// statusError is an answer of upstream that is not a file.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("upstream answered %d", e.status) }

// passed are the headers that matter to apt; all others stay where they are.
var (
	passedOn   = []string{"If-Modified-Since", "If-None-Match", "Range", "If-Range", "Accept", "Cache-Control", "User-Agent"}
	passedBack = []string{"Content-Type", "Content-Length", "Content-Range", "Last-Modified", "Etag", "Accept-Ranges", "Cache-Control", "Date", "Location"}
)

// pass forwards a request for a file that may change.
func (c *Cache) pass(w http.ResponseWriter, r *http.Request, target *url.URL) {
	request, err := http.NewRequestWithContext(r.Context(), r.Method, target.String(), nil)
	if err != nil {
		http.Error(w, "invalid URL", http.StatusBadRequest)
		return
	}
	copyHeaders(request.Header, r.Header, passedOn)
	// The client follows redirections itself: they come back here and are checked.
	client := *c.config.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil {
		http.Error(w, "upstream cannot be reached: "+reason(err), http.StatusBadGateway)
		return
	}
	defer func() { _ = response.Body.Close() }() // read to its end or of no use
	copyHeaders(w.Header(), response.Header, passedBack)
	w.WriteHeader(response.StatusCode)
	if _, err := io.Copy(w, response.Body); err != nil {
		c.config.Logger.Debug("transfer interrupted", "host", target.Host, "path", target.Path, "error", err)
	}
}

func copyHeaders(to, from http.Header, names []string) {
	for _, name := range names {
		if values := from.Values(name); len(values) > 0 {
			to[name] = values
		}
	}
}

// reason is the innermost part of an error of the HTTP client, without the URL that the client knows.
func reason(err error) string {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return err.Error()
}

// evict removes the least recently used files until the store is within its bound, and parts of fetches that died.
func (c *Cache) evict() error {
	entries, err := os.ReadDir(c.config.Dir)
	if err != nil {
		return err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue // another process evicted it
		}
		if strings.HasPrefix(e.Name(), ".part-") {
			if time.Since(info.ModTime()) > 10*idleTimeout {
				_ = os.Remove(filepath.Join(c.config.Dir, e.Name())) // tried again the next time
			}
			continue
		}
		files = append(files, info)
	}
	for _, name := range excess(files, c.config.MaxBytes) {
		if err := os.Remove(filepath.Join(c.config.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
