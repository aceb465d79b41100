//go:build machine && power

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

// TestPowerCut takes the power from a virtual machine while dpkg is at work. It is long, and run by hand: make test-power.
func TestPowerCut(t *testing.T) {
	d := startDev(t, "10.214.13.0/24", 18343)
	d.pv("apply", "-f", d.manifest(vms), "--yes", "--timeout", "20m")
	d.waitReady("vm", 1)
	d.powerCut(t, d.manifest(vms+"  packages: [{name: mc}]\n"))
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
	// It is not the provider's: the test ends it.
	t.Cleanup(func() {
		text, err := os.ReadFile(filepath.Join(dir, "qemu.pid"))
		if err != nil {
			return // its folder is gone with it
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
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
