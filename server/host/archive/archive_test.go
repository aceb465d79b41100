package archive

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/host/rootfs"
)

func TestWithoutSources(t *testing.T) {
	a := Open(Config{
		CacheDir: t.TempDir(), AptDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), AllowHosts: func(host string) bool { return host == "127.0.0.1:2" },
	})
	// Machines with an image of their own have repositories of their own.
	proxy, err := a.Proxy()
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]int{"http://127.0.0.1:2/InRelease": http.StatusBadGateway, "http://127.0.0.1:3/InRelease": http.StatusForbidden} {
		w := httptest.NewRecorder()
		proxy.ServeHTTP(w, httptest.NewRequest(http.MethodGet, url, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", url, w.Code, want)
		}
	}
	if _, err := a.Build(t.Context(), t.TempDir(), rootfs.Container()); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a build: %v", err)
	}
}

func TestProxyKnowsItsHosts(t *testing.T) {
	apt := t.TempDir()
	if err := os.WriteFile(filepath.Join(apt, "sources.list"), []byte("deb http://127.0.0.1:1/debian bookworm main\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := Open(Config{
		CacheDir: t.TempDir(), AptDir: apt, Logger: slog.New(slog.DiscardHandler), AllowHosts: func(host string) bool { return host == "127.0.0.1:2" },
	})
	proxy, err := a.Proxy()
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]int{
		// Nothing listens there: the proxy has tried.
		"http://127.0.0.1:1/debian/InRelease": http.StatusBadGateway, "http://127.0.0.1:2/InRelease": http.StatusBadGateway,
		"http://127.0.0.1:3/InRelease": http.StatusForbidden,
	} {
		w := httptest.NewRecorder()
		proxy.ServeHTTP(w, httptest.NewRequest(http.MethodGet, url, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", url, w.Code, want)
		}
	}
	ready := a.Builder(t.TempDir(), rootfs.Container())
	if err := os.Mkdir(ready.Path(), 0o755); err != nil {
		t.Fatal(err)
	}
	if path, err := a.Build(t.Context(), ready.Dir, rootfs.Container()); err != nil || path != ready.Path() {
		t.Errorf("what is built was built again: %s, %v", path, err)
	}
}
