//go:build machine

package image

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/provisionr/provisionr/internal/errs"
)

// TestInspect: an image must not refer to files of the host. It needs qemu-img.
func TestInspect(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(file("raw"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"create", "-q", "-f", "qcow2", file("plain"), "8M"},
		{"create", "-q", "-f", "qcow2", "-b", file("raw"), "-F", "raw", file("backed")},
		{"create", "-q", "-f", "qcow2", "-o", "data_file=" + file("data") + ",data_file_raw=on", file("external"), "8M"},
	} {
		if _, err := Run(t.Context(), "qemu-img", args...); err != nil {
			t.Fatal(err)
		}
	}
	f := &Fetcher{}
	for name, want := range map[string]Image{"plain": {Format: "qcow2", Size: 8 << 20}, "raw": {Format: "raw", Size: 1 << 20}} {
		want.Path = file(name)
		if got, err := f.open(t.Context(), file(name)); got != want || err != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"backed", "external"} {
		if _, err := f.open(t.Context(), file(name)); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
