package download

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func TestWhatOthersHaveIsKept(t *testing.T) {
	h, _, _ := hosttest.New(t)
	archive := tarOf(t, honest...)
	s := newSite(t, map[string][]byte{"/a": archive, "/broken": []byte("no archive")})
	write := func(name string) {
		t.Helper()
		if err := errors.Join(h.MkdirAll(filepath.Dir(name), 0o755), h.WriteFile(name, []byte("theirs"), host.Attributes{})); err != nil {
			t.Fatal(err)
		}
	}
	// A file in the place of the directory, and files beside it with names like those of what we leave.
	write("/opt/app")
	for _, beside := range []string{"/opt/.app.backup.tar", "/opt/.app.1.old", "/opt/.app.2024.part"} {
		write(beside)
	}
	d := newDownload(t, &h, &agentv1.Download{Path: "/opt/app", Urls: []string{s.URL + "/a"}, Sha256: sum(archive), Extract: true})
	if _, err := d.Check(t.Context()); !errs.Is(err, errs.Conflict) {
		t.Errorf("a file: %v", err)
	}
	if err := h.Remove("/opt/app"); err != nil {
		t.Fatal(err)
	}
	write("/opt/.app.0123456789ab.part")
	settle(t, d)
	names, err := os.ReadDir(filepath.Join(h.Root, "opt"))
	if err != nil || len(names) != 4 {
		t.Errorf("beside it: %v, %v", names, err)
	}
	// One that could not be unpacked is no claim to what somebody puts there later.
	d = newDownload(t, &h, &agentv1.Download{Path: "/opt/other", Urls: []string{s.URL + "/broken"}, Sha256: sum([]byte("no archive")), Extract: true})
	if err := d.Apply(t.Context()); !errs.Is(err, errs.Denied) {
		t.Fatal(err)
	}
	write("/opt/other/data")
	if _, err := d.Check(t.Context()); !errs.Is(err, errs.Conflict) {
		t.Errorf("a directory: %v", err)
	}
	// Nor is one that appeared between check and apply.
	d = newDownload(t, &h, &agentv1.Download{Path: "/opt/other", Urls: []string{s.URL + "/a"}, Sha256: sum(archive), Extract: true})
	if err := d.Apply(t.Context()); !errs.Is(err, errs.Conflict) {
		t.Errorf("apply: %v", err)
	}
	if b, err := h.ReadFile("/opt/other/data"); err != nil || string(b) != "theirs" {
		t.Errorf("%q, %v", b, err)
	}
}
