package fetch

import (
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

func TestDirect(t *testing.T) {
	none := []string{"mirror.example", ".internal", "*.corp", "10.0.0.0/8", "odd.example:8080"}
	for raw, want := range map[string]bool{
		"http://mirror.example/x": true, "http://MIRROR.example:80/x": true, "http://a.mirror.example/": true, "http://notmirror.example/": false,
		"https://x.internal/": true, "http://a.corp/": true, "http://10.1.2.3/": true, "http://11.1.2.3/": false,
		"http://odd.example:8080/": true, "http://odd.example/": false, "http://localhost:1/": true, "http://127.0.0.2/": true,
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := Direct(u, none); got != want {
			t.Errorf("%s: %v", raw, got)
		}
	}
}

func TestBytesBoundsAndProxy(t *testing.T) {
	proxied := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxied++
		w.Write([]byte(strings.Repeat("x", 100)))
	}))
	defer proxy.Close()
	c, err := New(proxy.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(strings.Repeat("x", 100)))
	if got, err := c.Bytes(t.Context(), []string{"http://files.example/x"}, sum[:], 100); err != nil || len(got) != 100 || proxied != 1 {
		t.Errorf("%d bytes, proxied %d, %v", len(got), proxied, err)
	}
	if _, err := c.Bytes(t.Context(), []string{"http://files.example/x"}, sum[:], 99); !errs.Is(err, errs.Exhausted) {
		t.Error(err)
	}
}

func TestSilence(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		<-release
	}))
	defer s.Close()
	defer close(release)
	c, err := New("", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.silence = 50 * time.Millisecond
	if _, err := c.Bytes(t.Context(), []string{s.URL}, nil, 100); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "nothing came for") {
		t.Error(err)
	}
}
