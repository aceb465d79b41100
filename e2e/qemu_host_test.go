//go:build machine

package e2e

import (
	"fmt"
	"strings"
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
