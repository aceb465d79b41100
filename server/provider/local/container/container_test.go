package container

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/server/host/process"
)

func TestRecord(t *testing.T) {
	dir := t.TempDir()
	if _, err := Record(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no record: %v", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := process.Process{PID: 7, Start: 8, Boot: "b"}
	if err := errors.Join(writeRecord(root, want), root.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := Record(dir); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestBoundingSet(t *testing.T) {
	set := "," + BoundingSet() + ","
	for _, forbidden := range []string{"sys_time", "sys_module", "sys_rawio", "sys_boot", "mac_admin", "mac_override", "syslog", "wake_alarm", "mknod"} {
		if strings.Contains(set, "+"+forbidden+",") {
			t.Errorf("%s is allowed", forbidden)
		}
	}
	if !strings.HasPrefix(set, ",-all,+") || !strings.Contains(set, "+net_admin,") {
		t.Errorf("set %q", set)
	}
}
