package host_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
)

func TestWriteFile(t *testing.T) {
	h, _, _ := hosttest.New(t)
	path := filepath.Join(h.Root, "etc/f")
	if err := h.MkdirAll("/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		data string
		mode fs.FileMode
		want fs.FileMode
	}{
		{"new", 0, 0o644},
		{"given mode", 0o600, 0o600},
		{"kept mode", 0, 0o600},
		{"setuid", 0o755 | fs.ModeSetuid, 0o755 | fs.ModeSetuid},
	}
	for _, s := range steps {
		if err := h.WriteFile("/etc/f", []byte(s.data), host.Attributes{Mode: s.mode}); err != nil {
			t.Fatal(err)
		}
		got, err := h.ReadFile("/etc/f")
		if err != nil || string(got) != s.data {
			t.Fatalf("read %q, %v", got, err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode() != s.want {
			t.Errorf("%s: mode %v, want %v, %v", s.data, st.Mode(), s.want, err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestWriteFileReplacesLink(t *testing.T) {
	h, _, _ := hosttest.New(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(h.Root, "f")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ReadFile("/f"); err == nil {
		t.Error("a link out of the root was followed")
	}
	if err := h.WriteFile("/f", []byte("new"), host.Attributes{}); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(outside); err != nil || string(data) != "mine" {
		t.Errorf("the file outside of the root is %q, %v", data, err)
	}
	if data, err := h.ReadFile("/f"); err != nil || string(data) != "new" {
		t.Errorf("read %q, %v", data, err)
	}
}

func TestRemove(t *testing.T) {
	h, _, _ := hosttest.New(t)
	if err := h.WriteFile("/f", nil, host.Attributes{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.Remove("/f"); err != nil {
			t.Error(err)
		}
	}
	if err := h.WriteFile("/no/such/f", nil, host.Attributes{}); err == nil {
		t.Error("a file was written into a directory that does not exist")
	}
}
