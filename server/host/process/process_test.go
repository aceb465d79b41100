package process

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
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

func TestAlive(t *testing.T) {
	self, err := Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// The group in which the test runs; "/" is not recognised, as it is everybody's.
	const elsewhere = "/sys/fs/cgroup/elsewhere/m-1"
	if alive, err := self.Alive(elsewhere); alive || err != nil {
		t.Errorf("in another cgroup: %v, %v", alive, err)
	}
	other := self
	other.Start++
	if alive, err := other.Alive(elsewhere); alive || err != nil {
		t.Errorf("another process with its pid: %v, %v", alive, err)
	}

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	alive, err := self.Alive(elsewhere)
	if again := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); again != nil {
		t.Fatal(again)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("without free descriptors: %v, %v", alive, err)
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
