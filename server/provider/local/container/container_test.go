package container

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	state, start, err := parseStat("42 (a b) c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 0 0\n")
	if err != nil || state != "S" || start != 98765 {
		t.Errorf("got %q %d %v", state, start, err)
	}
	for _, bad := range []string{"", "1 (x) S", "1 (x) S 1 1 1 0 -1 1 1 0 0 0 0 0 0 0 20 0 1 0 x"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}

func TestFind(t *testing.T) {
	self, err := Find(os.Getpid())
	if err != nil || self.Start == 0 || self.Boot == "" {
		t.Fatalf("found %+v, %v", self, err)
	}
	cmd := exec.Command("/bin/cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(cmd.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an ended process: %v", err)
	}
}

func TestInCgroup(t *testing.T) {
	const payload = "/sys/fs/cgroup/unified/provisionr-c/m-1/payload"
	for groups, want := range map[string]bool{
		"0::/provisionr-c/m-1/payload\n":                         true,
		"5:devices:/\n0::/provisionr-c/m-1/payload/init.scope\n": true,
		"0::/provisionr-c/m-2/payload\n":                         false,
		"0::/system.slice/x.service\n":                           false,
		"0::/\n":                                                 false,
		"":                                                       false,
		"1:name=systemd:/provisionr-c/m-1/payload\n0::/user.slice\n": false,
	} {
		if got := inCgroup(groups, payload); got != want {
			t.Errorf("%q: %v", groups, got)
		}
	}
}

func TestRecord(t *testing.T) {
	dir := t.TempDir()
	if _, err := Record(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no record: %v", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := Process{PID: 7, Start: 8, Boot: "b"}
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
