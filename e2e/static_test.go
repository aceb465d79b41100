//go:build machine

package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local"
)

// metal is a pool of machines that a person brings, in a network that this cluster knows by name only.
const metal = `
apiVersion: provisionr/v1
kind: Provider
metadata: {name: metal}
spec: {static: {}}
---
apiVersion: provisionr/v1
kind: Network
metadata: {name: rack}
spec:
  provider: metal
  cidr: 10.222.9.0/24
  gateway: 10.222.9.1
  ntpServers: [10.222.9.1]
  httpProxy: http://10.222.9.1:3142
---
apiVersion: provisionr/v1
kind: Pool
metadata: {name: db}
spec:
  size: 1
  provider: metal
  network: rack
  os: {distribution: debian, release: "12"}
  packages: [{name: tree}]
  files:
    - {path: /etc/motd, template: "{{ .Machine.FQDN }}\n"}
`

// bare is a machine that no cluster of ours has launched: a system container of a provider without a server.
type bare struct {
	p       *local.Provider
	id      string
	address string
}

func newBare(t *testing.T, id, cidr, gateway, address string) *bare {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "provisionr-bare-")
	if err != nil {
		t.Fatal(err)
	}
	p, err := local.New(local.Config{ClusterID: "t-bare", DataDir: filepath.Join(dir, "local"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Cleanup(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	network, err := p.EnsureNetwork(t.Context(), &provisionrv1.Network{
		Metadata: &provisionrv1.Metadata{Name: "rack"}, Spec: &provisionrv1.NetworkSpec{Cidr: cidr, Provider: "local", Gateway: gateway, Managed: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	_, err = p.Launch(t.Context(), provider.LaunchRequest{
		UserData: []byte("#cloud-config\nlocale: false\n"),
		Request: &provisionrv1.LaunchRequest{
			MachineId: id, ClusterId: "t-bare", ClusterName: "bare", Attempt: 1, Pool: "old", Slot: "old-1", Fqdn: "old-1.example.internal",
			Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}, Network: "rack", Address: address, PrefixLength: 24,
			Gateway: gateway, DnsServers: network.GetDnsServers(), HttpProxy: network.GetHttpProxy(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &bare{p, id, address}
}

// sh runs a line in the machine.
func (b *bare) sh(t *testing.T, line string) (string, error) {
	t.Helper()
	out, err := b.p.Enter(t.Context(), b.id, "sh", "-c", line)
	return strings.TrimSpace(string(out)), err
}

// TestStatic: a machine that exists joins by the line that is printed, is proven as any other, and is let go.
func TestStatic(t *testing.T) {
	b := newBare(t, "m-bareaaaaaaaaaaaa", "10.222.9.0/24", "10.222.9.1", "10.222.9.20")
	d := startDev(t, "10.222.1.0/24", 17943, "--no-local", "--network-host", "rack=10.222.9.1", "--dns-port", "15953")
	if out, _ := b.sh(t, "systemctl is-system-running --wait"); out != "running" {
		t.Fatalf("the machine is %s", out)
	}
	d.pv("apply", "-f", d.manifest(metal), "--yes", "--no-wait")
	var line string
	d.eventually("the slot waits for its machine", time.Minute, func() (err error) {
		line, err = d.try("machine", "adopt", "db-1", "--address", b.address)
		return err
	})
	if strings.Count(line, "\n") != 1 || len(line) > 300 || !strings.Contains(line, "https://10.222.9.1:17943/boot/v1/adopt/") {
		t.Errorf("the line is %q", line)
	}
	if out, err := b.sh(t, strings.Replace(line, "sha256//", "sha256//AAAA", 1)); err == nil && !strings.Contains(out, "curl") {
		t.Errorf("a server with another key was trusted: %s", out)
	}
	if out, err := b.sh(t, line); err != nil || !strings.Contains(out, "this machine joins as db-1.") {
		t.Fatalf("%v\n%s\n%s", err, line, out)
	}
	d.waitReady("db", 1)
	d.proven("db")
	if got := d.pv("exec", "db-1", "--", "cat", "/etc/motd"); !strings.Contains(got, "db-1.provisionr.internal") {
		t.Errorf("its motd is %q", got)
	}
	if out := d.pv("audit", "cloud", "metal"); !strings.Contains(out, "1 matched, 0 expected, 0 missing, 0 orphans") {
		t.Errorf("the ledger is\n%s", out)
	}
	t.Run("the line works once", func(t *testing.T) {
		if out, err := b.sh(t, line); err == nil && strings.Contains(out, "joins as") {
			t.Errorf("run again: %s", out)
		}
		if _, err := d.try("machine", "adopt", "db-1"); err == nil || !strings.Contains(err.Error(), "has joined already") {
			t.Errorf("adopted twice: %v", err)
		}
	})
	t.Run("a machine that is let go runs on", func(t *testing.T) {
		d.pv("delete", "pool", "db", "--yes", "--wait")
		if out, err := b.sh(t, "systemctl is-active systemd-logind"); err != nil {
			t.Errorf("it is %s: %v", out, err)
		}
		d.eventually("its agent is refused", time.Minute, func() error {
			out, err := b.sh(t, "journalctl -u provisionr-agent --no-pager -n 50")
			if err == nil && !strings.Contains(out, "is being deleted") {
				err = fmt.Errorf("its journal says %s", out)
			}
			return err
		})
	})
}
