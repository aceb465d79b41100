//go:build machine

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// web is a small pool whose packages are light, so that most of the time is ours.
const web = `
apiVersion: provisionr/v1
kind: Pool
metadata:
  name: web
spec:
  size: %d
  os: {distribution: debian, release: "12"}
  packages:
    - name: nginx-light
  files:
    - path: /var/www/html/index.html
      template: "This is {{ .Machine.FQDN }} of {{ len .Pool.Members }}.\n"
  users:
    - name: ops
      admin: true
      sshKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0pZYmTbCSgtq6VGvFgYX5Ovv1dH4NfmtmxvHCaW6nX ops@example"]
  services:
    - name: nginx
  safety:
    silentAfter: 8s
  firewall:
    rules:
      - {name: http, ports: ["80"], from: [self]}
`

// TestPool is the life of a pool: apply, prove, drift, grow, shrink, lose a machine, lose the server, delete.
func TestPool(t *testing.T) {
	d := startDev(t, "10.214.1.0/24", 17443)
	d.pv("apply", "-f", d.manifest(fmt.Sprintf(web, 2)), "--yes", "--timeout", "8m")
	d.waitReady("web", 2)

	t.Run("plan is empty after apply", func(t *testing.T) { d.pv("plan", "-f", d.manifest(fmt.Sprintf(web, 2))) })
	t.Run("every assumption is proven", func(t *testing.T) { d.proven("web") })
	t.Run("names resolve both ways from outside", func(t *testing.T) { d.resolves(t, "web") })
	t.Run("names resolve both ways from inside", func(t *testing.T) {
		for slot, m := range d.bySlot("web") {
			if got := d.pv("exec", "web-1", "--", "getent", "hosts", m.Spec.Fqdn); !strings.Contains(got, m.Status.Address) {
				t.Errorf("web-1 resolves %s to %q", m.Spec.Fqdn, got)
			}
			if got := d.pv("exec", "web-2", "--", "getent", "hosts", m.Status.Address); !strings.Contains(got, m.Spec.Fqdn) {
				t.Errorf("web-2 resolves %s of %s to %q", m.Status.Address, slot, got)
			}
		}
	})
	t.Run("files are templated", func(t *testing.T) {
		got := d.pv("exec", "web-1", "--", "curl", "-s", "-m", "5", "http://web-2."+d.settings()["DOMAIN"]+"/")
		if want := "This is web-2." + d.settings()["DOMAIN"] + " of 2."; !strings.Contains(got, want) {
			t.Errorf("web-2 serves %q, want %q", got, want)
		}
	})
	t.Run("the firewall drops what no rule allows", func(t *testing.T) {
		address := d.bySlot("web")["web-1"].Status.Address
		if out, err := d.try("exec", "web-2", "--", "curl", "-s", "-m", "2", "http://"+address+":7447/"); err == nil {
			t.Errorf("web-2 reached the denied port of web-1: %q", out)
		}
	})
	t.Run("drift is repaired and told", func(t *testing.T) { d.drift(t) })
	t.Run("a machine cannot set the clock", func(t *testing.T) {
		if out, err := d.try("exec", "web-1", "--", "date", "-s", "2001-01-01"); err == nil {
			t.Errorf("root in a machine set the clock: %q", out)
		}
		if time.Now().Year() < 2020 {
			t.Fatal("the host's clock was changed")
		}
	})
	t.Run("grow", func(t *testing.T) {
		d.pv("scale", "web", "3")
		d.waitReady("web", 3)
		d.proven("web")
	})
	t.Run("a killed machine is replaced under its name", func(t *testing.T) { d.replaced(t, "web", "web-2", 3) })
	t.Run("a killed server finds its machines again", func(t *testing.T) { d.adopted(t, "web", 3) })
	t.Run("shrink", func(t *testing.T) {
		d.pv("scale", "web", "1")
		d.waitReady("web", 1)
		if _, ok := d.bySlot("web")["web-1"]; !ok {
			t.Errorf("web-1 should have stayed: %v", d.machines("web"))
		}
	})
	t.Run("delete", func(t *testing.T) {
		d.pv("delete", "pool", "web", "--yes", "--wait")
		if left, err := filepath.Glob("/sys/fs/cgroup/*/provisionr-*17443*/m-*"); err != nil || len(left) != 0 {
			t.Errorf("cgroups are left: %v %v", left, err)
		}
		if records := d.pv("dns", "records"); strings.Contains(records, "web-1") {
			t.Errorf("names are left:\n%s", records)
		}
	})
}

// proven fails the test unless the pool's newest proofs all hold.
func (d *dev) proven(pool string) {
	d.t.Helper()
	d.eventually("every proof of "+pool+" holds", time.Minute, func() error {
		_, err := d.try("verify", pool)
		return err
	})
	var matrix any
	if err := json.Unmarshal([]byte(d.pv("verify", pool, "-o", "json")), &matrix); err != nil {
		d.t.Errorf("verify -o json is not JSON: %v", err)
	}
}

func (d *dev) resolves(t *testing.T, pool string) {
	s := d.settings()
	dig := func(args ...string) string {
		return output(t, "dig", append([]string{"+short", "+time=2", "-p", s["DNS_PORT"], "@" + s["DNS_ADDRESS"]}, args...)...)
	}
	for _, m := range d.machines(pool) {
		for _, protocol := range []string{"+notcp", "+tcp"} {
			if got := dig(protocol, m.Spec.Fqdn, "A"); got != m.Status.Address {
				t.Errorf("%s %s A is %q, want %s", protocol, m.Spec.Fqdn, got, m.Status.Address)
			}
			if got := dig(protocol, "-x", m.Status.Address); got != m.Spec.Fqdn+"." {
				t.Errorf("%s PTR of %s is %q, want %s", protocol, m.Status.Address, got, m.Spec.Fqdn)
			}
		}
	}
}

func (d *dev) drift(t *testing.T) {
	page := "/var/www/html/index.html"
	d.pv("exec", "web-1", "--", "sh", "-c", "echo spoiled >"+page+"; nft flush ruleset; systemctl stop nginx")
	d.eventually("the page, the firewall and the service are as desired", 2*time.Minute, func() error {
		got, err := d.try("exec", "web-1", "--", "sh", "-c", "cat "+page+"; nft list table inet provisionr; systemctl is-active nginx")
		if err != nil || strings.Contains(got, "spoiled") {
			return fmt.Errorf("%q %w", got, err)
		}
		return nil
	})
	d.eventually("an event tells of the drift", time.Minute, func() error {
		if events := d.pv("events"); !strings.Contains(events, page) {
			return errors.New(events)
		}
		return nil
	})
}

// initOf returns the process id of a machine's init, found by its cgroup.
func initOf(t *testing.T, machineID string) int {
	t.Helper()
	var lowest int
	for _, pattern := range []string{"/sys/fs/cgroup/provisionr-*/", "/sys/fs/cgroup/unified/provisionr-*/"} {
		dirs, _ := filepath.Glob(pattern + machineID)
		for _, dir := range dirs {
			_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
				if err != nil || e.Name() != "cgroup.procs" {
					return nil
				}
				data, _ := os.ReadFile(path)
				for _, field := range strings.Fields(string(data)) {
					if pid, err := strconv.Atoi(field); err == nil && pid > 0 && (lowest == 0 || pid < lowest) {
						lowest = pid
					}
				}
				return nil
			})
		}
	}
	if lowest == 0 {
		t.Fatalf("no process of machine %s", machineID)
	}
	return lowest
}

func (d *dev) replaced(t *testing.T, pool, slot string, size int) {
	before := d.bySlot(pool)[slot]
	if err := syscall.Kill(initOf(t, before.Metadata.Name), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.eventually(slot+" is another machine", 3*time.Minute, func() error {
		now := d.bySlot(pool)[slot]
		if now.Metadata.Name == "" || now.Metadata.Name == before.Metadata.Name {
			return fmt.Errorf("it is %s, %s: %s", now.Metadata.Name, now.Status.Phase, now.Status.Reason)
		}
		return nil
	})
	d.waitReady(pool, size)
	d.resolves(t, pool)
}

func (d *dev) adopted(t *testing.T, pool string, size int) {
	ids := func() []string {
		var all []string
		for _, m := range d.machines(pool) {
			all = append(all, m.Metadata.Name)
		}
		slices.Sort(all)
		return all
	}
	before := ids()
	d.kill()
	d.start()
	d.waitReady(pool, size)
	if after := ids(); !slices.Equal(before, after) {
		t.Errorf("the machines were %v and are %v", before, after)
	}
	d.proven(pool)
}
