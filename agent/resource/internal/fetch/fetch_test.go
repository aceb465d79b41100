package fetch

import (
	"crypto/sha256"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
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
	c, err := New(&agentv1.MachineComponent{HttpProxy: proxy.URL, ProxyEnvironment: true})
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
	c, err := New(&agentv1.MachineComponent{})
	if err != nil {
		t.Fatal(err)
	}
	c.silence = 50 * time.Millisecond
	if _, err := c.Bytes(t.Context(), []string{s.URL}, nil, 100); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "nothing came for") {
		t.Error(err)
	}
}

// tunnels is a proxy that only opens tunnels, for who has its password, and counts them.
type tunnels struct{ opened int }

func (p *tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth(); user != "u" || password != "p" {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	if r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	there, err := net.Dial("tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	p.opened++
	w.WriteHeader(http.StatusOK)
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(there, here)
		_ = there.Close()
	}()
	_, _ = io.Copy(here, there)
	_ = here.Close()
}

// TestWays fetches over TLS: directly, by a tunnel where the proxy is for all, and by the package manager's proxy where the
// server cannot be reached in another way; and follows redirections, but not out of TLS.
func TestWays(t *testing.T) {
	content := []byte("content")
	sum := sha256.Sum256(content)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/x", http.StatusFound)
		case "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
		case "/out":
			http.Redirect(w, r, plain.URL, http.StatusFound)
		default:
			_, _ = w.Write(content)
		}
	}))
	defer secure.Close()
	counter := &tunnels{}
	proxy := httptest.NewServer(counter)
	defer proxy.Close()
	via := strings.Replace(proxy.URL, "//", "//u:p@", 1)
	for name, c := range map[string]struct {
		machine *agentv1.MachineComponent
		url     string
		opened  int
		fails   string
	}{
		"direct":           {&agentv1.MachineComponent{}, "https://example.com/x", 0, ""},
		"redirected":       {&agentv1.MachineComponent{}, "https://example.com/moved", 0, ""},
		"in circles":       {&agentv1.MachineComponent{}, "https://example.com/round", 0, "redirections"},
		"out of TLS":       {&agentv1.MachineComponent{}, "https://example.com/out", 0, "a redirection leads to"},
		"through a tunnel": {&agentv1.MachineComponent{HttpProxy: via, ProxyEnvironment: true}, "https://example.com/x", 1, ""},
		"second way":       {&agentv1.MachineComponent{HttpProxy: via}, "https://example.com/x", 1, ""},
		"wrong password":   {&agentv1.MachineComponent{HttpProxy: proxy.URL, ProxyEnvironment: true}, "https://example.com/x", 0, "407"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := New(c.machine)
			if err != nil {
				t.Fatal(err)
			}
			for _, way := range client.ways {
				way.tls = secure.Client().Transport.(*http.Transport).TLSClientConfig
				way.resolve = func(string) string { return secure.Listener.Addr().String() }
			}
			if name == "second way" {
				client.ways[0].resolve = func(string) string { return "127.0.0.1:1" }
			}
			counter.opened = 0
			got, err := client.Bytes(t.Context(), []string{c.url}, sum[:], 100)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v, want one with %q", err, c.fails)
				}
				return
			}
			if err != nil || string(got) != string(content) || counter.opened != c.opened {
				t.Errorf("%q, %d tunnels, %v", got, counter.opened, err)
			}
		})
	}
}
