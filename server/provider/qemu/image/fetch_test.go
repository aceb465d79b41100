package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

func source(url string, content []byte) Source {
	sum := sha256.Sum256(content)
	return Source{URL: url, SHA256: hex.EncodeToString(sum[:])}
}

// fetch is Ensure without what qemu-img says of the image.
func fetch(t *testing.T, f *Fetcher, s Source) (string, error) {
	t.Helper()
	if err := os.MkdirAll(f.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(f.Dir, s.SHA256+".part")
	if err := f.fetch(t.Context(), s, part); err != nil {
		return "", err
	}
	data, err := os.ReadFile(part)
	return string(data), err
}

func TestFetchByPath(t *testing.T) {
	content := []byte("a disk")
	path := filepath.Join(t.TempDir(), "x.img")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &Fetcher{Dir: t.TempDir()}
	if got, err := fetch(t, f, source(path, content)); got != "a disk" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	wrong := source(path, []byte("another"))
	if _, err := fetch(t, f, wrong); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), wrong.SHA256) {
		t.Errorf("a wrong hash: %v", err)
	}
	if _, err := os.Stat(filepath.Join(f.Dir, wrong.SHA256+".part")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is wrong was kept: %v", err)
	}
	if _, err := fetch(t, f, source("/nonexistent/disk", content)); !errs.Is(err, errs.Invalid) {
		t.Errorf("an absent file: %v", err)
	}
	if _, err := fetch(t, &Fetcher{Dir: t.TempDir(), MaxBytes: 3}, source(path, content)); !errs.Is(err, errs.Invalid) {
		t.Errorf("too much: %v", err)
	}
}

// TestFetchResumes: the server cuts the first answer off; the next call asks for the rest.
func TestFetchResumes(t *testing.T) {
	content := []byte(strings.Repeat("0123456789", 1000))
	for _, ranges := range []bool{true, false} {
		var asked []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.Header.Get("Range"))
			if len(asked) == 1 {
				w.Header().Set("Content-Length", fmt.Sprint(len(content)))
				_, _ = w.Write(content[:4000]) // it is cut off here
				return
			}
			if !ranges {
				r.Header.Del("Range")
			}
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(content)))
		}))
		f := &Fetcher{Dir: t.TempDir(), Client: server.Client()}
		s := source(server.URL+"/x.qcow2?token=secret", content)
		if _, err := fetch(t, f, s); !errs.Is(err, errs.Unavailable) || strings.Contains(err.Error(), "secret") {
			t.Errorf("a cut answer: %v", err)
		}
		if got, err := fetch(t, f, s); got != string(content) || err != nil {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if len(asked) != 2 || asked[0] != "" || asked[1] != "bytes=4000-" {
			t.Errorf("asked for %q", asked)
		}
		// All of it is there: the server has no such range.
		if got, err := fetch(t, f, s); got != string(content) || err != nil {
			t.Errorf("got %d bytes the third time, %v", len(got), err)
		}
		server.Close()
	}
}

func TestFetchRefused(t *testing.T) {
	status := http.StatusNotFound
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	f := &Fetcher{Dir: t.TempDir(), Client: server.Client()}
	s := source(server.URL+"/x", []byte("x"))
	if _, err := fetch(t, f, s); !errs.Is(err, errs.Invalid) {
		t.Errorf("not found: %v", err)
	}
	status = http.StatusServiceUnavailable
	if _, err := fetch(t, f, s); !errs.Is(err, errs.Unavailable) {
		t.Errorf("not now: %v", err)
	}
	server.Close()
	if _, err := fetch(t, f, s); !errs.Is(err, errs.Unavailable) {
		t.Errorf("no server: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Ensure(ctx, s); err == nil {
		t.Error("with a cancelled context it succeeded")
	}
}

func TestWatchedEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	w := &watched{ReadCloser: io.NopCloser(strings.NewReader("x")), watchdog: time.AfterFunc(time.Hour, func() {}), cancel: cancel}
	if _, err := w.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil || ctx.Err() == nil {
		t.Errorf("closing leaves the request: %v", err)
	}
}

func TestToolsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := Tools(); !errs.Is(err, errs.Unsupported) || !strings.Contains(errs.HintOf(err), "qemu-system-x86 qemu-utils xorriso") {
		t.Errorf("without programs: %v, %s", err, errs.HintOf(err))
	}
	if _, err := Run(t.Context(), "qemu-img", "info"); !errs.Is(err, errs.Unsupported) {
		t.Errorf("without qemu-img: %v", err)
	}
}
