//go:build machine

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/ntp"
)

// plain is a pool without packages of its own: what it takes is ours.
const plain = `
apiVersion: provisionr/v1
kind: Pool
metadata:
  name: plain
spec:
  size: %d
  os: {distribution: debian, release: "12"}
  files:
    - path: /etc/kept
      content: "as desired\n"
  safety:
    silentAfter: 8s
  %s
`

// TestMachine is what may happen to machines and to the server while they boot and live.
func TestMachine(t *testing.T) {
	d := startDev(t, "10.214.2.0/24", 17543)
	t.Run("killed in mid-boot", func(t *testing.T) { d.killedInBoot(t) })
	t.Run("server killed in mid-apply", func(t *testing.T) { d.killedInApply(t) })
	t.Run("without servers", func(t *testing.T) { d.withoutServers(t) })
	t.Run("a source of time that is off by 10 s", func(t *testing.T) { d.shiftedTime(t) })
}

// killedInBoot kills the first machine that boots: another takes its place.
func (d *dev) killedInBoot(t *testing.T) {
	d.pv("apply", "-f", d.manifest(fmt.Sprintf(plain, 2, "")), "--yes", "--no-wait")
	var killed string
	d.eventually("a machine boots and is killed", time.Minute, func() error {
		for _, m := range d.machines("plain") {
			if phaseOf(m) == "booting" {
				killed = m.Metadata.Name
				return syscall.Kill(initOf(t, killed), syscall.SIGKILL)
			}
		}
		return fmt.Errorf("none boots: %v", d.machines("plain"))
	})
	d.eventually(killed+" is no more", 3*time.Minute, func() error {
		for _, m := range d.machines("plain") {
			if m.Metadata.Name == killed {
				return fmt.Errorf("it is %s: %s", phaseOf(m), m.Status.Reason)
			}
		}
		return nil
	})
	d.waitReady("plain", 2)
	d.balanced(t)
}

// killedInApply kills the server again and again while machines are made and deleted: none is leaked, none doubled.
func (d *dev) killedInApply(t *testing.T) {
	for round, phase := range []string{"pending", "launching", "booting", "joining"} {
		size := 2 + round%2
		d.pv("scale", "plain", strconv.Itoa(5-size))
		d.await(t, phase, 20*time.Second)
		d.kill()
		d.start()
		d.pv("scale", "plain", strconv.Itoa(size))
	}
	d.waitReady("plain", 3)
	d.balanced(t)
	d.resolves(t, "plain")
}

// await returns when a machine of the pool is in the phase, or after a while: phases may be too short to be seen.
func (d *dev) await(t *testing.T, phase string, within time.Duration) {
	t.Helper()
	deadline := time.Now().Add(within)
	for time.Now().Before(deadline) {
		for _, m := range d.machines("plain") {
			if phaseOf(m) == phase {
				return
			}
		}
		if allReady(d.machines("plain")) {
			return
		}
	}
}

// allReady reports whether nothing is going on any more.
func allReady(ms []machine) bool {
	for _, m := range ms {
		if phaseOf(m) != "ready" {
			return false
		}
	}
	return true
}

func phaseOf(m machine) string { return strings.ToLower(strings.TrimPrefix(m.Status.Phase, "PHASE_")) }

// balanced compares the machines that the provider keeps with those that the state knows.
func (d *dev) balanced(t *testing.T) {
	t.Helper()
	d.eventually("machines on the host are those of the state", time.Minute, func() error {
		dirs, err := filepath.Glob(filepath.Join(d.data(), "s1", "local", "machines", "m-*"))
		if err != nil {
			return err
		}
		known := map[string]bool{}
		for _, m := range d.machines("plain") {
			known[m.Metadata.Name] = true
		}
		if len(dirs) != len(known) {
			return fmt.Errorf("%d on the host, %d in the state", len(dirs), len(known))
		}
		for _, dir := range dirs {
			if !known[filepath.Base(dir)] {
				return fmt.Errorf("%s is on the host and in no record", filepath.Base(dir))
			}
		}
		return nil
	})
}

// withoutServers stops the server: machines go on resolving and repairing, and are taken up again.
func (d *dev) withoutServers(t *testing.T) {
	slots := d.bySlot("plain")
	one, two := slots["plain-1"], slots["plain-2"]
	pid := initOf(t, one.Metadata.Name)
	d.kill()
	inside := func(args ...string) string {
		return output(t, "nsenter", append([]string{"--net=/proc/" + strconv.Itoa(pid) + "/ns/net", "dig", "+short", "@127.0.0.62"}, args...)...)
	}
	if got := inside(two.Spec.Fqdn, "A"); got != two.Status.Address {
		t.Errorf("%s is %q without servers, want %s", two.Spec.Fqdn, got, two.Status.Address)
	}
	if got := inside("-x", two.Status.Address); got != two.Spec.Fqdn+"." {
		t.Errorf("PTR of %s is %q without servers, want %s", two.Status.Address, got, two.Spec.Fqdn)
	}
	kept := "/proc/" + strconv.Itoa(pid) + "/root/etc/kept"
	if err := os.WriteFile(kept, []byte("spoiled\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.eventually("the agent repairs without servers", 2*time.Minute, func() error {
		data, err := os.ReadFile(kept)
		if err != nil || string(data) != "as desired\n" {
			return fmt.Errorf("%q %w", data, err)
		}
		return nil
	})
	d.start()
	d.waitReady("plain", 3)
	d.proven("plain")
}

// shiftedTime gives the machines a clock to follow that is wrong.
func (d *dev) shiftedTime(t *testing.T) {
	const address = "10.214.2.250"
	link := strings.Fields(output(t, "ip", "-o", "addr", "show", "to", "10.214.2.1/32"))[1]
	output(t, "ip", "addr", "add", address+"/32", "dev", link)
	conn, err := net.ListenPacket("udp", address+":123")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := (&ntp.Responder{Offset: 10 * time.Second}).Serve(ctx, conn); err != nil {
			t.Errorf("the shifted source: %v", err)
		}
	})
	defer func() { stop(); serving.Wait() }()
	d.pv("apply", "-f", d.manifest(fmt.Sprintf(plain, 3, "ntp: {servers: ["+address+"]}")), "--yes", "--no-wait")
	d.eventually("verify finds the clock wrong", 2*time.Minute, func() error {
		out, err := d.try("verify", "plain")
		if err == nil || !strings.Contains(out+err.Error(), "clock") || !strings.Contains(out, "FAIL plain-1 clock") {
			return fmt.Errorf("%s %w", out, err)
		}
		return nil
	})
	d.pv("apply", "-f", d.manifest(fmt.Sprintf(plain, 3, "")), "--yes", "--no-wait")
	d.waitReady("plain", 3)
	d.proven("plain")
}

// TestDemo is what the README promises of `make demo` and `make demo-down`.
func TestDemo(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), "PROVISIONR_CONFIG="+config)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	demo := filepath.Join(repo, "tools", "demo")
	if _, err := os.Stat(filepath.Join(repo, ".demo")); err == nil {
		t.Fatal("a demo runs already: make demo-down")
	}
	before := traces(t)
	out := run(demo, "up")
	for _, want := range []string{"zk-3.provisionr.internal", "mode: leader", "42 proven, 0 failed", "PTR  zk-1.provisionr.internal."} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo did not print %q:\n%s", want, out)
		}
	}
	key := filepath.Join(repo, ".demo", "id_ed25519")
	if got := run(binary("provisionr"), "ssh", "zk-1", "-i", key, "--", "hostname -f; sudo -n id -un"); !strings.Contains(got, "zk-1.provisionr.internal\nroot") {
		t.Errorf("ssh as the admin: %q", got)
	}
	run(demo, "down")
	for line := range strings.Lines(traces(t)) {
		if !strings.Contains(before, line) {
			t.Errorf("the demo left something behind: %s", line)
		}
	}
	if _, err := os.Stat(filepath.Join(repo, ".demo")); err == nil {
		t.Error("the demo left its folder behind")
	}
}

// traces are the host's links, tables and mounts that are ours by name.
func traces(t *testing.T) string {
	t.Helper()
	var ours strings.Builder
	for _, list := range []string{output(t, "ip", "-o", "link"), output(t, "nft", "list", "tables"), output(t, "cat", "/proc/mounts")} {
		for line := range strings.Lines(list) {
			if strings.Contains(line, "pvr") || strings.Contains(line, "provisionr") {
				ours.WriteString(strings.TrimSpace(line) + "\n")
			}
		}
	}
	return ours.String()
}
