//go:build machine

package local

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/server/host/cgroup"
	"github.com/provisionr/provisionr/server/provider"
)

// testIsolation is root inside, trying: each script must fail. They run through Enter, which is what exec could use at
// most, and as a service of the machine itself.
func testIsolation(t *testing.T, s *stage) {
	start := time.Now()
	disk, path := hostDisk(t)
	attempts := map[string]string{
		"make a node of the host's disk":         "mknod /root/disk b " + disk + " && head -c 512 /root/disk >/dev/null",
		"make a node on a tmpfs of its own":      "mount -t tmpfs tmpfs /mnt && mknod /mnt/disk b " + disk,
		"make a node in /dev":                    "mknod /dev/disk b " + disk,
		"make a node of the memory":              "mknod /root/mem c 1 1",
		"mount devtmpfs":                         "mount -t devtmpfs devtmpfs /mnt",
		"mount the host's disk":                  "mount " + path + " /mnt",
		"set the clock":                          "date -s '2001-01-01'",
		"set the clock by system call":           "python3 -c 'import time; time.clock_settime(time.CLOCK_REALTIME, 1e9)'",
		"set the hardware clock":                 "hwclock -w",
		"write a sysctl":                         "echo 1 > /proc/sys/kernel/panic",
		"write a sysctl of the memory":           "echo 1 > /proc/sys/vm/swappiness",
		"write a sysctl of files":                "sysctl -w fs.file-max=1000",
		"write a sysctl of modules":              "echo /bin/true > /proc/sys/kernel/modprobe",
		"write the core pattern":                 "echo '|/bin/true' > /proc/sys/kernel/core_pattern",
		"write a sysctl of a proc remounted":     "mount -o remount,rw /proc; echo 1 > /proc/sys/kernel/panic",
		"write a sysctl of a proc of its own":    "mount -t proc proc /mnt && echo 1 > /mnt/sys/kernel/panic",
		"sysrq":                                  "echo h > /proc/sysrq-trigger",
		"read the kernel's memory":               "head -c 1 /proc/kcore > /dev/null",
		"write to sysfs":                         "mount -o remount,rw /sys; mount -t sysfs sysfs /mnt; for d in /sys /mnt; do echo 1 > $d/kernel/profiling && exit 0; done; exit 1",
		"release agent of a v1 cgroup":           "mount -t cgroup -o memory cgroup /mnt && echo /bin/true > /mnt/release_agent",
		"raise its own limits":                   "echo max > /sys/fs/cgroup/pids.max",
		"load a module":                          "modprobe dummy",
		"see processes of the host":              "test $(ps -e | wc -l) -gt 200",
		"mount a file system of the host's":      "mount -t ext4 /dev/loop0 /mnt",
		"get capabilities by a namespace within": "unshare -Ur date -s '2001-01-01'",
	}
	for name, script := range attempts {
		out, err := s.p.Enter(t.Context(), machineID(1), "unshare", "-m", "sh", "-c", script)
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() <= 0 {
			t.Errorf("root inside can %s: %v\n%s", name, err, out)
		}
		service := []string{"systemd-run", "--quiet", "--wait", "--pipe", "-p", "PrivateMounts=yes", "sh", "-c", script}
		if out, err := s.p.Enter(t.Context(), machineID(1), service...); err == nil {
			t.Errorf("a service inside can %s\n%s", name, out)
		}
	}
	for path, value := range map[string]string{"/proc/sys/net/ipv4/ip_forward": "0", "/proc/sys/net/ipv4/ip_default_ttl": "77"} {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s.sh(1, "echo "+value+" > "+path) // its own network's
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("root inside changed the host's %s to %s, %v", path, after, err)
		}
	}
	if step := time.Now().Round(0).Sub(start.Round(0)) - time.Since(start); step.Abs() > time.Minute {
		t.Errorf("the host's clock was stepped by %v", step)
	}
	if got := s.sh(1, "grep CapEff /proc/self/status /proc/1/status | cut -f2 | sort -u | wc -l"); got != "1" {
		t.Error("Enter gives other capabilities than init has")
	}
}

// hostDisk returns numbers and path of a block device of the host.
func hostDisk(t *testing.T) (numbers, path string) {
	t.Helper()
	disks, err := filepath.Glob("/sys/class/block/*/dev")
	if err != nil || len(disks) == 0 {
		t.Fatalf("the host has no block device to try: %v", err)
	}
	dev, err := os.ReadFile(disks[len(disks)-1])
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(dev)), ":", " "), "/dev/" + filepath.Base(filepath.Dir(disks[len(disks)-1]))
}

// holders has a file for each provider of the host that needs its settings.
const holders = "/run/provisionr/sysctl/holders"

// assertNothingLeft is called after Cleanup.
func (s *stage) assertNothingLeft() {
	s.t.Helper()
	table := s.p.scope
	if out, err := exec.Command("nft", "list", "tables").CombinedOutput(); err != nil || strings.Contains(string(out), table) {
		s.t.Errorf("nft tables: %v\n%s", err, out)
	}
	if out, err := exec.Command("ip", "-d", "link").CombinedOutput(); err != nil || strings.Contains(string(out), table) ||
		strings.Contains(string(out), s.p.networks.Bridge("local")) {
		s.t.Errorf("links: %v\n%s", err, out)
	}
	group, err := cgroup.Of(s.p.scope, "")
	if err != nil {
		s.t.Error(err)
	}
	for _, path := range []string{group.Dir, s.config.DataDir, filepath.Join(holders, s.config.ClusterID)} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			s.t.Errorf("%s is left: %v", path, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), s.config.DataDir) {
		s.t.Errorf("mounts are left: %v\n%s", err, mounts)
	}
	if others, err := os.ReadDir(holders); err == nil && len(others) > 0 {
		return // another cluster on this host needs the settings
	}
	for path, want := range s.sysctls {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			s.t.Errorf("%s is %q and was %q, %v", path, got, want, err)
		}
	}
}

// TestRefusals: requests that cannot succeed are Invalid and leave nothing.
func TestRefusals(t *testing.T) {
	s := newStage(t)
	for name, spoil := range map[string]func(*provider.LaunchRequest){
		"foreign cluster":   func(r *provider.LaunchRequest) { r.Request.ClusterId = "other" },
		"bad id":            func(r *provider.LaunchRequest) { r.Request.MachineId = "../x" },
		"no network":        func(r *provider.LaunchRequest) { r.Request.Network = "nowhere" },
		"foreign address":   func(r *provider.LaunchRequest) { r.Request.Address = "192.0.2.1" },
		"gateway's address": func(r *provider.LaunchRequest) { r.Request.Address = s.network.GetGateway() },
		"other release":     func(r *provider.LaunchRequest) { r.Request.Os.Release = "11" },
		"bad fqdn":          func(r *provider.LaunchRequest) { r.Request.Fqdn = "a\nb" },
	} {
		request := s.request(1)
		spoil(&request)
		if _, err := s.p.Launch(t.Context(), request); provider.KindOf(err) != provider.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if states := s.states(); len(states) != 0 {
		t.Errorf("refused machines are listed: %v", states)
	}
	object := s.networkObject()
	object.Spec.Cidr = "127.0.0.0/16"
	object.Metadata.Name = "loop"
	if _, err := s.p.EnsureNetwork(t.Context(), object); provider.KindOf(err) != provider.Invalid {
		t.Errorf("a range of the host's: %v", err)
	}
	object = s.networkObject()
	object.Spec.Cidr = "10.214.0.0/24"
	if _, err := s.p.EnsureNetwork(t.Context(), object); provider.KindOf(err) != provider.Invalid {
		t.Errorf("another range for a network: %v", err)
	}
	if err := s.p.Terminate(t.Context(), machineID(1), ""); err != nil {
		t.Errorf("termination of an absent machine: %v", err)
	}
}
