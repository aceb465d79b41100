package console

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, path string, header ...string) *http.Response {
	t.Helper()
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestPartsAreServed(t *testing.T) {
	for path, contentType := range map[string]string{
		"/": "text/html", "/app.js": "text/javascript", "/matrix.js": "text/javascript", "/style.css": "text/css",
	} {
		r := get(t, path)
		if r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), contentType) {
			t.Errorf("%s: %s, %s", path, r.Status, r.Header.Get("Content-Type"))
		}
		if r.Header.Get("Content-Security-Policy") != policy {
			t.Errorf("%s: no content security policy", path)
		}
		if again := get(t, path, "If-None-Match", r.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s: asked again: %s", path, again.Status)
		}
	}
	if r := get(t, "/assets/app.js"); r.StatusCode != http.StatusNotFound || r.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("unknown path: %s", r.Status)
	}
}

// The policy forbids what would break silently in a browser: inline code and assets from elsewhere.
func TestPageObeysItsPolicy(t *testing.T) {
	forbidden := regexp.MustCompile(`(?i)<script>|<style|\sstyle=|\son[a-z]+=|https?://|innerHTML|insertAdjacentHTML|eval\(|document\.write`)
	for _, name := range []string{"index.html", "app.js", "matrix.js", "style.css"} {
		data, err := assets.ReadFile("assets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if at := forbidden.FindString(string(data)); at != "" {
			t.Errorf("%s contains %q", name, at)
		}
	}
}
