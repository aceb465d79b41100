//go:build machine

package qemu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/cgroup"
	"github.com/provisionr/provisionr/server/provider"
)

// These tests run real virtual machines, emulated where the host has no KVM. They need root, QEMU, mmdebstrap, nft and a
// Debian archive, and fail without.

// stand is a cluster of its own on this host, with one network.
type stand struct {
	t       *testing.T
	config  Config
	p       *Provider
	network *provisionrv1.NetworkSpec
	prefix  netip.Prefix
}

// third is the third byte of the test networks, from another range than the default network's and other tests'.
var third struct {
	sync.Mutex
	n int
}

func newStand(t *testing.T) *stand {
	t.Helper()
	third.Lock()
	third.n++
	prefix := netip.MustParsePrefix(fmt.Sprintf("10.216.%d.0/24", third.n))
	third.Unlock()
	dir, err := os.MkdirTemp("/var/tmp", "provisionr-test-")
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{t: t, prefix: prefix, config: Config{Site: host.Site{
		ClusterID: "t-" + strings.ToLower(rand.Text()[:10]), DataDir: dir + "/qemu",
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}}
	t.Cleanup(func() {
		if err := s.open().Cleanup(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		s.assertNothingLeft()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.p = s.open()
	if _, err := s.p.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.network, err = s.p.EnsureNetwork(t.Context(), &provisionrv1.Network{
		Metadata: &provisionrv1.Metadata{Name: "vms"}, Spec: &provisionrv1.NetworkSpec{Cidr: prefix.String(), Provider: "qemu"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open makes another Provider on the same directory, as a restarted server does.
func (s *stand) open() *Provider {
	s.t.Helper()
	p, err := New(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// run has the provider's services run until the test ends.
func (s *stand) run() {
	ctx, cancel := context.WithCancel(s.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.p.Run(ctx); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(func() { cancel(); running.Wait() })
}

// request of machine n with little memory, whose cloud-init runs the shell commands.
func (s *stand) request(n int, commands ...string) provider.LaunchRequest {
	return provider.LaunchRequest{
		UserData: userData(commands...),
		Request: &provisionrv1.LaunchRequest{
			MachineId: machineID(n), ClusterId: s.config.ClusterID, ClusterName: "test", Attempt: 1, Pool: "web", Slot: fmt.Sprintf("web-%d", n),
			Fqdn: fmt.Sprintf("web-%d.provisionr.internal", n), Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"},
			Hardware: &provisionrv1.Hardware{Cpus: 1, MemoryMib: 128},
			Network:  "vms", Address: s.address(n).String(), PrefixLength: 24, Gateway: s.network.GetGateway(),
			DnsServers: s.network.GetDnsServers(), HttpProxy: s.network.GetHttpProxy(),
		},
	}
}

func userData(commands ...string) []byte {
	var data strings.Builder
	data.WriteString("#cloud-config\nruncmd:\n")
	for _, c := range commands {
		fmt.Fprintf(&data, "- %q\n", c)
	}
	if len(commands) == 0 {
		data.WriteString("- 'true'\n")
	}
	return []byte(data.String())
}

func machineID(n int) string { return fmt.Sprintf("m-aaaaaaaaaaaaaaa%c", 'a'+n) }

func (s *stand) address(n int) netip.Addr {
	a := s.prefix.Addr().As4()
	a[3] = byte(10 + n)
	return netip.AddrFrom4(a)
}

func (s *stand) launch(p *Provider, request provider.LaunchRequest) provider.Instance {
	s.t.Helper()
	instance, err := p.Launch(s.t.Context(), request)
	if err != nil {
		s.t.Fatal(err)
	}
	return instance
}

func (s *stand) states() map[string]provider.State {
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

func (s *stand) waitFor(n int, want provider.State, within time.Duration) {
	s.t.Helper()
	for deadline := time.Now().Add(within); s.states()[machineID(n)] != want; {
		if time.Now().After(deadline) {
			s.t.Fatalf("machine %d is %q, not %s", n, s.states()[machineID(n)], want)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// beacons listens on the gateway and passes on what is posted to it.
func (s *stand) beacons() (url string, got <-chan string) {
	s.t.Helper()
	listener, err := net.Listen("tcp4", s.network.GetGateway()+":0")
	if err != nil {
		s.t.Fatal(err)
	}
	received := make(chan string, 16)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
		if err != nil {
			s.t.Errorf("a beacon was cut off: %v", err)
		}
		select {
		case received <- string(body):
		default:
			s.t.Errorf("too many beacons; this one says %s", body)
		}
	})}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	return "http://" + listener.Addr().String() + "/", received
}

// await returns the next beacon.
func (s *stand) await(got <-chan string, n int, within time.Duration) string {
	s.t.Helper()
	select {
	case text := <-got:
		return text
	case <-time.After(within):
		console, _ := s.p.Console(s.t.Context(), machineID(n), "")
		s.t.Fatalf("no beacon of machine %d within %s; its console:\n%s", n, within, console)
	case <-s.t.Context().Done():
		s.t.Fatal(s.t.Context().Err())
	}
	return ""
}

// assertNothingLeft is called after Cleanup.
func (s *stand) assertNothingLeft() {
	s.t.Helper()
	for _, command := range [][]string{{"nft", "list", "tables"}, {"ip", "-d", "link"}, {"ps", "-eo", "args"}} {
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil || strings.Contains(string(out), s.p.scope) || strings.Contains(string(out), s.config.DataDir) ||
			strings.Contains(string(out), s.p.networks.Bridge("vms")) {
			s.t.Errorf("%v: %v\n%s", command, err, out)
		}
	}
	group, err := cgroup.Of(s.p.scope, "")
	if err != nil {
		s.t.Error(err)
	}
	for _, path := range []string{group.Dir, s.config.DataDir, "/run/provisionr/sysctl/holders/" + s.config.ClusterID + "_qemu"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			s.t.Errorf("%s is left: %v", path, err)
		}
	}
}
