package hosttest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/provisionr/provisionr/agent/host"
)

// New returns a host on an empty temporary directory with scripted commands and in-memory units.
func New(t testing.TB) (host.Host, *Commands, *Units) {
	t.Helper()
	c, u := &Commands{}, &Units{}
	return host.Host{Root: t.TempDir(), Commands: c, Units: u}, c, u
}

// Write makes a file below the host's root, and the directories that it is in.
func Write(t testing.TB, h host.Host, name, content string) {
	t.Helper()
	on := filepath.Join(h.Root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}
