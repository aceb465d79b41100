//go:build machine

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// locked is a pool in a VPN, with places where a manifest may go wrong.
const locked = `
apiVersion: provisionr/v1
kind: Vpn
metadata:
  name: mesh
spec:
  cidr: 10.99.0.0/24
---
apiVersion: provisionr/v1
kind: VpnPeer
metadata:
  name: laptop
spec:
  vpn: mesh
  publicKey: mJ1eiIGoUcVf6pUMzmcL/ogeiJoFCeR3MmsyuIuqUBk=
  routes: [%s]
---
apiVersion: provisionr/v1
kind: Pool
metadata:
  name: locked
spec:
  size: 1
  os: {distribution: debian, release: "12"}
  vpn: {name: mesh}
  safety: {silentAfter: 300s}
%s
`

// TestLockout changes what machines are reached by, each time so that nobody reaches them any more: they come back by
// themselves, say what was undone, and take the next change that is right.
func TestLockout(t *testing.T) {
	const cidr, gateway = "10.214.10.0/24", "10.214.10.1"
	d := startDev(t, cidr, 18143)
	apply := func(routes, more string) {
		t.Helper()
		d.pv("apply", "-f", d.manifest(fmt.Sprintf(locked, routes, more)), "--yes", "--no-wait")
	}
	right := func() {
		t.Helper()
		apply("", "")
		d.waitReady("locked", 1)
	}
	right()
	before := d.bySlot("locked")["locked-1"].Metadata.Name
	for _, c := range []struct{ name, resource, routes, more string }{
		{"inbound is dropped", "firewall/", "", `
  firewall:
    rules:
      - {name: oops, drop: true, ports: ["1-7445"], from: [any]}`},
		{"sshd listens elsewhere", "sshd/", "", `
  ssh: {settings: {AddressFamily: inet6}}`},
		{"the machine takes the server's address", "network/", "", `
  networking: {addresses: ["` + gateway + `/32"]}`},
		{"the VPN takes the way to the server", "vpn/", gateway + "/32", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			apply(c.routes, c.more)
			d.eventually("the machine undoes it and says so", 4*time.Minute, func() error {
				for _, e := range d.events("locked-1") {
					if strings.Contains(e, c.resource) && strings.Contains(e, "rolled back") {
						return nil
					}
				}
				return fmt.Errorf("its events: %s", strings.Join(d.events("locked-1"), "\n"))
			})
			d.reachable(t, "locked-1")
			right()
		})
	}
	t.Run("a bad agent", func(t *testing.T) { d.badBuild(t) })
	if now := d.bySlot("locked")["locked-1"].Metadata.Name; now != before {
		t.Errorf("the machine was replaced: %s instead of %s", now, before)
	}
}

// events of a machine, a line each.
func (d *dev) events(slot string) []string {
	d.t.Helper()
	return strings.Split(d.pv("events", "--machine", slot), "\n")
}

// reachable shows that sshd answers from outside and that the agent takes commands.
func (d *dev) reachable(t *testing.T, slot string) {
	t.Helper()
	address := d.bySlot("locked")[slot].Status.Address
	d.eventually("sshd answers", time.Minute, func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(address, "22"), 2*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		greeting := make([]byte, 4)
		if _, err := io.ReadFull(c, greeting); err != nil || string(greeting) != "SSH-" {
			return fmt.Errorf("it says %q: %v", greeting, err)
		}
		return nil
	})
	d.eventually("the agent takes commands", time.Minute, func() error {
		_, err := d.try("exec", slot, "--", "true")
		return err
	})
}

// badBuild offers an agent that starts and never calls: the one before takes over again.
func (d *dev) badBuild(t *testing.T) {
	programs := filepath.Join(d.dir, "programs")
	if err := os.CopyFS(programs, os.DirFS(filepath.Join(repo, "bin"))); err != nil {
		t.Fatal(err)
	}
	agents, err := filepath.Glob(filepath.Join(programs, "provisionr-agent-*"))
	if err != nil || len(agents) == 0 {
		t.Fatal("no agents", err)
	}
	for _, path := range agents {
		bad := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] && echo '%s' && exit 0\nexec sleep 100000\n", output(t, path, "--version"))
		if err := os.WriteFile(path, []byte(bad), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	running := d.agentOf("locked-1")
	d.kill()
	d.args = append(d.args, "--agent-dir", programs)
	d.start()
	d.waitReady("locked", 1)
	if out, err := d.try("agents", "upgrade", "locked-1", "--timeout", "4m"); err == nil {
		t.Errorf("the upgrade to a bad agent succeeded: %s", out)
	}
	d.reachable(t, "locked-1")
	if now := d.agentOf("locked-1"); now != running {
		t.Errorf("the agent is %s, was %s", now, running)
	}
}

// agentOf returns the hash of the agent that runs on a machine.
func (d *dev) agentOf(slot string) string {
	d.t.Helper()
	sum, _, _ := strings.Cut(d.pv("exec", slot, "--", "sh", "-c", "sha256sum < /proc/$(systemctl show -P MainPID provisionr-agent)/exe"), " ")
	return sum
}
