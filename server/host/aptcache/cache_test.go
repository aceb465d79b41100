package aptcache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an upstream, a cache before it, and a client that uses the cache as its proxy.
type rig struct {
	t        *testing.T
	dir      string
	upstream *httptest.Server
	client   *http.Client
	hits     atomic.Int32
}

func newRig(t *testing.T, bound int64, upstream http.HandlerFunc) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.upstream = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.hits.Add(1)
		upstream(w, q)
	}))
	host := strings.TrimPrefix(r.upstream.URL, "http://")
	outward := &http.Transport{DisableCompression: true}
	cache, err := New(Config{
		Dir: r.dir, MaxBytes: bound, Logger: slog.New(slog.DiscardHandler), Client: &http.Client{Transport: outward},
		Upstream: func(h string) (string, bool) { return "http", h == host },
	})
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(cache)
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	inward := &http.Transport{Proxy: http.ProxyURL(at)}
	r.client = &http.Client{Transport: inward}
	t.Cleanup(func() {
		inward.CloseIdleConnections()
		proxy.Close()
		outward.CloseIdleConnections()
		r.upstream.Close()
	})
	return r
}

// get returns status and body; an interrupted answer is an error.
func (r *rig) get(path string, headers ...string) (int, string, error) {
	r.t.Helper()
	q, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.upstream.URL+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	answer, err := r.client.Do(q)
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), errors.Join(err, answer.Body.Close())
}

func (r *rig) stored() []string {
	files, err := filepath.Glob(filepath.Join(r.dir, "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

func TestPackagesAreFetchedOnce(t *testing.T) {
	r := newRig(t, 1<<20, func(w http.ResponseWriter, q *http.Request) { fmt.Fprint(w, "content of ", q.URL.Path) })
	for _, path := range []string{"/debian/pool/a_1.0%2bb_all.deb", "/debian/dists/x/by-hash/SHA256/abc"} {
		for range 3 {
			status, body, err := r.get(path)
			if err != nil || status != 200 || !strings.HasPrefix(body, "content of /debian/") {
				t.Fatalf("%s: %d %q %v", path, status, body, err)
			}
		}
	}
	if r.hits.Load() != 2 || len(r.stored()) != 2 {
		t.Errorf("%d requests upstream, stored %v", r.hits.Load(), r.stored())
	}
	if status, body, err := r.get("/debian/pool/a_1.0%2bb_all.deb", "Range", "bytes=8-9"); status != 206 || body != "of" || err != nil {
		t.Errorf("a part of a stored file: %d %q %v", status, body, err)
	}
}

func TestConcurrentRequestsShareAFetch(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	r := newRig(t, 1<<20, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "6")
		fmt.Fprint(w, "abc")
		w.(http.Flusher).Flush()
		close(begun)
		<-proceed
		fmt.Fprint(w, "def")
	})
	var clients sync.WaitGroup
	for range 5 {
		clients.Go(func() {
			if status, body, err := r.get("/x.deb"); status != 200 || body != "abcdef" || err != nil {
				t.Errorf("got %d %q %v", status, body, err)
			}
		})
	}
	<-begun
	close(proceed)
	clients.Wait()
	if r.hits.Load() != 1 {
		t.Errorf("%d requests upstream", r.hits.Load())
	}
}

func TestIndexesAreAskedEachTime(t *testing.T) {
	r := newRig(t, 1<<20, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
		if q.Header.Get("If-Modified-Since") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if q.Header.Get("Cookie") != "" {
			t.Error("a header was passed on that is nobody's business")
		}
		fmt.Fprint(w, "index")
	})
	for range 2 {
		if status, body, err := r.get("/debian/dists/x/InRelease", "Cookie", "a=b"); status != 200 || body != "index" || err != nil {
			t.Errorf("got %d %q %v", status, body, err)
		}
	}
	if status, _, err := r.get("/debian/dists/x/InRelease", "If-Modified-Since", "Mon, 01 Jan 2024 00:00:00 GMT"); status != http.StatusNotModified || err != nil {
		t.Errorf("got %d %v", status, err)
	}
	if r.hits.Load() != 3 || len(r.stored()) != 0 {
		t.Errorf("%d requests upstream, stored %v", r.hits.Load(), r.stored())
	}
}

func TestBrokenDownloadsAreNotStored(t *testing.T) {
	r := newRig(t, 1<<20, func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/absent.deb":
			http.NotFound(w, q)
		case "/torn.deb":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "torn")
		}
	})
	if status, _, err := r.get("/absent.deb"); status != http.StatusNotFound || err != nil {
		t.Errorf("absent: %d %v", status, err)
	}
	if status, body, err := r.get("/torn.deb"); err == nil && status == 200 {
		t.Errorf("torn: %d %q", status, body)
	}
	if len(r.stored()) != 0 {
		t.Errorf("stored %v", r.stored())
	}
	r.upstream.Close()
	for _, path := range []string{"/x.deb", "/InRelease"} {
		if status, body, err := r.get(path); status != http.StatusBadGateway || strings.Contains(body, "http://") || err != nil {
			t.Errorf("%s without upstream: %d %q %v", path, status, body, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t, 1<<20, func(http.ResponseWriter, *http.Request) { t.Error("upstream was asked") })
	cache, err := New(Config{Dir: r.dir, MaxBytes: 1, Logger: slog.New(slog.DiscardHandler), Upstream: func(h string) (string, bool) { return "http", h == "deb.example.org" }})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		method, target string
		want           int
	}{
		{http.MethodGet, "http://other.example.org/x.deb", http.StatusForbidden},
		{http.MethodGet, "http://deb.example.org:8080/x.deb", http.StatusForbidden},
		{http.MethodGet, "http://user@deb.example.org/x.deb", http.StatusBadRequest},
		{http.MethodGet, "https://deb.example.org/x.deb", http.StatusBadRequest},
		{http.MethodGet, "/x.deb", http.StatusBadRequest},
		{http.MethodPost, "http://deb.example.org/x.deb", http.StatusMethodNotAllowed},
		{http.MethodPut, "http://deb.example.org/x.deb", http.StatusMethodNotAllowed},
		{http.MethodConnect, "deb.example.org:443", http.StatusForbidden},
	} {
		w := httptest.NewRecorder()
		cache.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), test.method, test.target, nil))
		if w.Code != test.want || w.Body.Len() == 0 {
			t.Errorf("%s %s: %d %q", test.method, test.target, w.Code, w.Body)
		}
	}
}

func TestLeastRecentlyUsedGo(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 1000)
	r := newRig(t, 2500, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
	old := time.Now().Add(-time.Hour)
	for _, path := range []string{"/a.deb", "/b.deb"} {
		if _, _, err := r.get(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range r.stored() {
		if err := os.Chtimes(f, old, old); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/a.deb", "/c.deb", "/c.deb"} { // a is used again; the second c waits for the eviction
		if _, _, err := r.get(path); err != nil {
			t.Fatal(err)
		}
	}
	cache := &Cache{config: Config{Dir: r.dir, MaxBytes: 2500}}
	if err := cache.evict(); err != nil {
		t.Fatal(err)
	}
	names := strings.Join(r.stored(), " ")
	if !strings.Contains(names, "-a.deb") || !strings.Contains(names, "-c.deb") || strings.Contains(names, "-b.deb") {
		t.Errorf("stored %s", names)
	}
}

func FuzzStoredName(f *testing.F) {
	f.Add("http://deb.debian.org/debian/pool/main/a/a_1%3a2_all.deb")
	f.Add("http://h/../../etc/passwd.deb")
	f.Add("http://h/a/by-hash/../x")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		name := storedName(u)
		if name != filepath.Base(name) || strings.HasPrefix(name, ".") || len(name) > 200 {
			t.Errorf("%q is stored as %q", text, name)
		}
		if immutable(u) && (u.RawQuery != "" || strings.Contains(u.Path, "/../")) {
			t.Errorf("%q is stored for ever", text)
		}
	})
}
