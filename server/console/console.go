package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"

	"github.com/provisionr/provisionr/internal/errs"
)

//go:embed assets
var assets embed.FS

// policy is the content security policy of every answer.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// New returns the handler for the page at / and its parts below it.
func New() (http.Handler, error) {
	files := map[string]string{
		"/": "index.html", "/app.js": "app.js", "/matrix.js": "matrix.js", "/style.css": "style.css",
	}
	types := map[string]string{
		"/": "text/html; charset=utf-8", "/app.js": "text/javascript; charset=utf-8",
		"/matrix.js": "text/javascript; charset=utf-8", "/style.css": "text/css; charset=utf-8",
	}
	mux := http.NewServeMux()
	for path, name := range files {
		data, err := fs.ReadFile(assets, "assets/"+name)
		if err != nil {
			return nil, errs.New(errs.Internal, "cannot load the console: %w", err)
		}
		pattern := "GET " + path
		if path == "/" {
			pattern += "{$}"
		}
		mux.Handle(pattern, part(data, types[path]))
	}
	return secured(mux), nil
}

// part serves one file, which a browser asks for again by its hash.
func part(data []byte, contentType string) http.Handler {
	sum := sha256.Sum256(data)
	etag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("ETag", etag)
		h.Set("Cache-Control", "no-cache")
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", contentType)
		// A failure to write means that the browser is gone.
		_, _ = w.Write(data)
	})
}

func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Strict-Transport-Security", "max-age=31536000")
		next.ServeHTTP(w, r)
	})
}
