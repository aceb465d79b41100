package hosttest

import (
	"testing"

	"github.com/provisionr/provisionr/agent/host"
)

// New returns a host on an empty temporary directory with scripted commands and in-memory units.
func New(t testing.TB) (host.Host, *Commands, *Units) {
	t.Helper()
	c, u := &Commands{}, &Units{}
	return host.Host{Root: t.TempDir(), Commands: c, Units: u}, c, u
}
