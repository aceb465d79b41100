package host_test

import (
	"testing"

	"github.com/provisionr/provisionr/agent/host"
)

// The names are those of systemd-escape --path.
func TestUnitForPath(t *testing.T) {
	for path, want := range map[string]string{
		"/data": "data.mount", "/var/lib/hdfs": "var-lib-hdfs.mount", "/": "-.mount", "/a-b/.c d": `a\x2db-.c\x20d.mount`, "/.x": `\x2ex.mount`, "//a//": "a.mount",
		"/ä": `\xc3\xa4.mount`,
	} {
		if got := host.UnitForPath(path, "mount"); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}
