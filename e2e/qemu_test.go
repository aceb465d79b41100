//go:build machine

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// vms is a pool of one virtual machine, on a network and a provider of its own.
const vms = `
apiVersion: provisionr/v1
kind: Provider
metadata:
  name: vms
spec:
  qemu: {owner: s1}
---
apiVersion: provisionr/v1
kind: Network
metadata:
  name: vms
spec:
  provider: vms
  cidr: 10.214.9.0/24
  managed: true
---
apiVersion: provisionr/v1
kind: Pool
metadata:
  name: vm
spec:
  size: 1
  provider: vms
  network: vms
  os: {distribution: debian, release: "12"}
  hardware: {cpus: 2, memoryMib: 512, diskGib: 8, disks: [{sizeGib: 1}]}
  files:
    - path: /etc/kept
      template: "{{ .Machine.FQDN }}\n"
  users:
    - name: ops
      admin: true
      sshKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0pZYmTbCSgtq6VGvFgYX5Ovv1dH4NfmtmxvHCaW6nX ops@example"]
  safety: {silentAfter: 600s, repairDisabled: true}
` + hostGlobal

// TestQemu boots a virtual machine through the real binaries: cloud-init, agent, proven; then the server is killed and
// takes it up again; then the pool is deleted. Without KVM it is emulated, and takes minutes.
func TestQemu(t *testing.T) {
	d := startDev(t, "10.214.8.0/24", 18043)
	manifest := d.manifest(vms)
	start := time.Now()
	d.pv("apply", "-f", manifest, "--yes", "--timeout", "20m")
	d.waitReady("vm", 1)
	t.Logf("ready after %v", time.Since(start).Round(time.Second))
	// An emulated machine on a busy host may be late with an answer, and says so until it is asked again.
	d.eventually("every proof holds", 5*time.Minute, func() error {
		_, err := d.try("verify", "vm")
		return err
	})
	d.resolves(t, "vm")
	m := d.bySlot("vm")["vm-1"]
	if got := d.pv("exec", "vm-1", "--", "sh", "-c", "cat /etc/kept; systemd-detect-virt --vm"); !strings.HasPrefix(got, m.Spec.Fqdn+"\n") || strings.Contains(got, "none") {
		t.Errorf("the machine says %q", got)
	}

	// It exits with 2, for there is something to change.
	if plan, err := d.try("plan", "-f", d.manifest(strings.Replace(vms, "size: 1", "size: 2", 1))); !strings.Contains(plan, "this host") {
		t.Errorf("the plan does not tell what the second machine would be: %v\n%s", err, plan)
	}

	d.kill()
	d.start()
	d.waitReady("vm", 1)
	if now := d.bySlot("vm")["vm-1"]; now.Metadata.Name != m.Metadata.Name {
		t.Errorf("a new server made another machine: %s instead of %s", now.Metadata.Name, m.Metadata.Name)
	}

	d.hostGlobals(t)
	d.reboots(t)

	d.pv("delete", "pool", "vm", "--yes", "--wait")
	if left, err := filepath.Glob(filepath.Join(d.data(), "s1", "qemu", "vms", "machines", "*")); err != nil || len(left) != 0 {
		t.Errorf("machines are left: %v %v", left, err)
	}
	if out, err := exec.Command("ps", "-eo", "args").CombinedOutput(); err != nil || strings.Contains(string(out), m.Metadata.Name) {
		t.Errorf("processes are left: %v\n%s", err, out)
	}
}
