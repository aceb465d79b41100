//go:build machine

package local

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// These tests boot real machines. They need root, mmdebstrap, nft and a Debian archive, and fail without.

// stage is a cluster of its own on this host, with one network.
type stage struct {
	t       *testing.T
	config  Config
	p       *Provider
	network *provisionrv1.NetworkSpec
	prefix  netip.Prefix
	// sysctls are the host's settings before.
	sysctls map[string]string
}

// bootLimit is for a machine in an emulated one. A boot takes two seconds.
const bootLimit = 5 * time.Minute

// third is the third byte of the test networks, from another range than the default network's.
var third struct {
	sync.Mutex
	n int
}

func newStage(t *testing.T) *stage {
	t.Helper()
	third.Lock()
	third.n++
	prefix := netip.MustParsePrefix(fmt.Sprintf("10.213.%d.0/24", third.n))
	third.Unlock()
	id := "t-" + strings.ToLower(rand.Text()[:10])
	dir, err := os.MkdirTemp("/var/tmp", "provisionr-test-")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, prefix: prefix, sysctls: map[string]string{}, config: Config{
		ClusterID: id, DataDir: dir + "/local", Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}
	for _, setting := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/fs/inotify/max_user_instances"} {
		value, err := os.ReadFile(setting)
		if err != nil {
			t.Fatal(err)
		}
		s.sysctls[setting] = string(value)
	}
	t.Cleanup(func() {
		p, err := New(s.config)
		if err != nil {
			t.Error(err)
			return
		}
		if err := p.Cleanup(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		s.assertNothingLeft()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.p = s.open()
	s.network, err = s.p.EnsureNetwork(t.Context(), s.networkObject())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// in is the stage for a subtest, which fails itself.
func (s *stage) in(t *testing.T) *stage {
	sub := *s
	sub.t = t
	return &sub
}

// open makes another Provider on the same directory, as a restarted server does.
func (s *stage) open() *Provider {
	s.t.Helper()
	p, err := New(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// run has the provider's services run until the test ends.
func (s *stage) run() {
	ctx, cancel := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.p.Run(ctx); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(func() { cancel(); running.Wait() })
}

func (s *stage) networkObject() *provisionrv1.Network {
	return &provisionrv1.Network{
		Metadata: &provisionrv1.Metadata{Name: "local"},
		Spec:     &provisionrv1.NetworkSpec{Cidr: s.prefix.String(), Provider: "local"},
	}
}

// request of machine n, whose cloud-init runs the shell commands.
func (s *stage) request(n int, commands ...string) provider.LaunchRequest {
	var data strings.Builder
	data.WriteString("#cloud-config\nruncmd:\n")
	for _, c := range commands {
		fmt.Fprintf(&data, "- %s\n", c)
	}
	return provider.LaunchRequest{
		UserData: []byte(data.String()),
		Request: &provisionrv1.LaunchRequest{
			MachineId: machineID(n), ClusterId: s.config.ClusterID, ClusterName: "test", Attempt: 1, Pool: "web", Slot: fmt.Sprintf("web-%d", n),
			Fqdn: fmt.Sprintf("web-%d.provisionr.internal", n), Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"},
			Network: "local", Address: s.address(n).String(), PrefixLength: 24, Gateway: s.network.GetGateway(),
			DnsServers: s.network.GetDnsServers(), HttpProxy: s.network.GetHttpProxy(),
		},
	}
}

func machineID(n int) string { return fmt.Sprintf("m-aaaaaaaaaaaaaaa%c", 'a'+n) }

func (s *stage) address(n int) netip.Addr {
	a := s.prefix.Addr().As4()
	a[3] = byte(10 + n)
	return netip.AddrFrom4(a)
}

// launch starts machine n and waits until systemd has finished the boot.
func (s *stage) launch(n int, commands ...string) {
	s.t.Helper()
	instance, err := s.p.Launch(s.t.Context(), s.request(n, commands...))
	if err != nil {
		s.t.Fatal(err)
	}
	if instance.MachineID != machineID(n) || instance.State != provider.Running || instance.Address != s.address(n) {
		s.t.Fatalf("launched %+v", instance)
	}
	s.boot(n)
}

func (s *stage) boot(n int) {
	s.t.Helper()
	for deadline := time.Now().Add(bootLimit); ; {
		out, _ := s.p.Enter(s.t.Context(), machineID(n), "systemctl", "is-system-running", "--wait")
		state := strings.TrimSpace(string(out))
		switch {
		case state == "running":
			return
		case state == "degraded" || time.Now().After(deadline):
			failed, _ := s.p.Enter(s.t.Context(), machineID(n), "systemctl", "--failed", "--no-legend")
			console, _ := s.p.Console(s.t.Context(), machineID(n), "")
			s.t.Fatalf("machine %d is %s\n%s\n%s", n, state, failed, console)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// sh runs a shell script inside, which must succeed.
func (s *stage) sh(n int, script string) string {
	s.t.Helper()
	out, err := s.p.Enter(s.t.Context(), machineID(n), "sh", "-ec", script)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *stage) states() map[string]provider.State {
	s.t.Helper()
	states := map[string]provider.State{}
	for instance, err := range s.p.List(s.t.Context()) {
		if err != nil {
			s.t.Fatal(err)
		}
		states[instance.MachineID] = instance.State
	}
	return states
}
