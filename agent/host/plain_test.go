package host_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/provisionr/provisionr/agent/host/hosttest"
)

func TestPlainPaths(t *testing.T) {
	h, _, _ := hosttest.New(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
	for name, content := range map[string][]byte{"etc/f": []byte("is"), "etc/empty": nil, "etc/big": big} {
		on := filepath.Join(h.Root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, content, 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"etc/link": "f", "linked": "etc", "outside": "/etc"} {
		if err := os.Symlink(target, filepath.Join(h.Root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name  string
		most  int64
		want  string
		cause error
	}{
		{"/etc/f", 100, "is", nil},
		{"etc/../etc//f", 100, "is", nil},
		{"/etc/f", 2, "is", nil},
		{"/etc/f", 1, "i", nil},
		{"/etc/empty", 100, "", nil},
		{"/etc/big", 1 << 20, string(big), nil},
		{"/etc/big", 5000, string(big[:5000]), nil},
		{"/etc/none", 100, "", fs.ErrNotExist},
		{"/none/f", 100, "", fs.ErrNotExist},
		{"/etc/link", 100, "", syscall.ELOOP},
		{"/linked/f", 100, "", syscall.ELOOP},
		{"/outside/passwd", 100, "", syscall.ELOOP},
		{"/etc/f/f", 100, "", syscall.ENOTDIR},
		{"/etc", 100, "", syscall.EISDIR},
	} {
		got, err := h.ReadPlain(tt.name, tt.most)
		if errors.Is(err, syscall.ENOSYS) {
			continue // a kernel without openat2 takes the long way everywhere
		}
		if string(got) != tt.want || !errors.Is(err, tt.cause) {
			t.Errorf("%s, at most %d: %d bytes, %v; want %d, %v", tt.name, tt.most, len(got), err, len(tt.want), tt.cause)
		}
	}
	if st, err := h.StatPlain("/etc/link"); err == nil && st.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		t.Errorf("a link in the last place was followed: mode %o", st.Mode)
	}
	if st, err := h.StatPlain("/etc/f"); err == nil && st.Mode != syscall.S_IFREG|0o640 {
		t.Errorf("mode %o", st.Mode)
	}
}

// Files of /proc say that they are empty.
func TestReadPlainOfUnknownSize(t *testing.T) {
	h, _, _ := hosttest.New(t)
	h.Root = "/"
	want, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.ReadPlain("/proc/kallsyms", 64<<20)
	if !errors.Is(err, syscall.ENOSYS) && (err != nil || len(got) != len(want)) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}
