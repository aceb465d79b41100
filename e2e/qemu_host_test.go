//go:build machine

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostGlobal is what only a machine with a kernel of its own can have.
const hostGlobal = `
  sysctl: {vm.swappiness: "11"}
  modules: [{name: dummy, options: numdummies=0}]
  timezone: Europe/Berlin
  swap: {sizeMib: 64}
  filesystems: [{path: /data, disk: 1}]
  osPolicy: {reboot: coordinated}
`

// hostGlobals shows that the machine has what hostGlobal says, and gets it back when it drifts.
func (d *dev) hostGlobals(t *testing.T) {
	d.eventually("the agent is connected again", 2*time.Minute, func() error {
		_, err := d.try("exec", "vm-1", "--", "true")
		return err
	})
	for _, c := range []struct{ name, command, want, drift string }{
		{"sysctl", "cat /proc/sys/vm/swappiness", "11", "echo 60 > /proc/sys/vm/swappiness"},
		{"module", "grep -c ^dummy /proc/modules", "1", "modprobe -r dummy"},
		{"timezone", "date +%Z | grep -c CES*T", "1", "ln -sf /usr/share/zoneinfo/UTC /etc/localtime"},
		{"swap", "grep -c swapfile /proc/swaps", "1", "swapoff -a"},
		{"filesystem", "findmnt -no FSTYPE /data", "ext4", "umount /data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.TrimSpace(d.pv("exec", "vm-1", "--", "sh", "-c", c.command)); got != c.want {
				t.Fatalf("%s says %q, want %q", c.command, got, c.want)
			}
			d.pv("exec", "vm-1", "--", "sh", "-c", c.drift)
			d.eventually("it is repaired", 3*time.Minute, func() error {
				out, err := d.try("exec", "vm-1", "--", "sh", "-c", c.command)
				if got := strings.TrimSpace(out); got != c.want {
					return fmt.Errorf("%q: %w", got, err)
				}
				return nil
			})
		})
	}
}

// reboots has the servers boot a machine again that says it must be.
func (d *dev) reboots(t *testing.T) {
	boot := func() string {
		out, _ := d.try("exec", "vm-1", "--", "cat", "/proc/sys/kernel/random/boot_id")
		return strings.TrimSpace(out)
	}
	before := boot()
	d.pv("exec", "vm-1", "--", "sh", "-c", "echo linux-image > /run/reboot-required.pkgs; touch /run/reboot-required")
	d.eventually("it has booted again", 8*time.Minute, func() error {
		if now := boot(); now == "" || now == before {
			return fmt.Errorf("boot id %q, was %q", now, before)
		}
		return nil
	})
	d.waitReady("vm", 1)
}

// powerCut ends the machine in mid-transaction, without a word to its kernel, and starts it again.
func (d *dev) powerCut(t *testing.T, manifest string) {
	d.pv("apply", "-f", manifest, "--yes", "--no-wait")
	dir := filepath.Join(d.data(), "s1", "qemu", "vms", "machines", d.bySlot("vm")["vm-1"].Metadata.Name)
	d.eventually("dpkg is at work", 5*time.Minute, func() error {
		_, err := d.try("exec", "vm-1", "--", "pgrep", "-x", "dpkg")
		return err
	})
	text, err := os.ReadFile(filepath.Join(dir, "qemu.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	d.eventually("it starts again", time.Minute, func() error {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	resume(t, dir)
	d.eventually("the transaction is ended", 10*time.Minute, func() error {
		out, err := d.try("exec", "vm-1", "--", "sh", "-c", "dpkg --audit; dpkg-query -W -f '${db:Status-Abbrev}\\n' mc; dpkg --verify mc mc-data | grep -v missing")
		// The image leaves documentation out: what is there must be whole.
		if strings.TrimSpace(out) != "ii" {
			return fmt.Errorf("%q: %w", out, err)
		}
		return nil
	})
	d.waitReady("vm", 1)
}

// resume lets a machine that was started stopped run, over QEMU's machine protocol. A socket's path is short, so that it is
// reached through its folder.
func resume(t *testing.T, dir string) {
	t.Helper()
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	c, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/qmp.sock", folder.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers := json.NewDecoder(c)
	for _, command := range []string{`{"execute":"qmp_capabilities"}`, `{"execute":"cont"}`, `{"execute":"query-status"}`} {
		var answer json.RawMessage
		if err := answers.Decode(&answer); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(command)); err != nil {
			t.Fatal(err)
		}
	}
}
