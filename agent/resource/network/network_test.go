package network

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func state(n *agentv1.Networking) *desired.State {
	return &desired.State{Machine: &agentv1.MachineComponent{Address: "10.0.0.1"}, Pool: &agentv1.PoolComponent{Networking: n}}
}

func settle(t *testing.T, h *host.Host, n *agentv1.Networking, want ...string) {
	t.Helper()
	r := New(state(n), h)[0]
	d, err := r.Check(t.Context())
	if err != nil || d.Empty() {
		t.Fatalf("before: %q, %v", d.Text, err)
	}
	for _, w := range want {
		if !strings.Contains(d.Text, w) {
			t.Errorf("diff does not say %q:\n%s", w, d.Text)
		}
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after: %q, %v", d.Text, err)
	}
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// TestKernel changes a real interface, in a network namespace of its own.
func TestKernel(t *testing.T) {
	if !hosttest.InNamespace(t) {
		return
	}
	sh(t, "ip link set lo up; ip link add eth0 type veth peer name far; ip link set eth0 addrgenmode none; ip link set far addrgenmode none; ip address add 10.0.0.1/24 dev eth0; ip link set eth0 up; ip link set far up; ip route add default via 10.0.0.254")
	h, _, _ := hosttest.New(t)
	index := strings.TrimSpace(sh(t, "ip -o link show eth0 | cut -d: -f1"))
	links := filepath.Join(h.Root, "run/systemd/netif/links")
	if err := os.MkdirAll(links, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(links, index), []byte("ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/10-eth0.network\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if len(New(state(nil), &h)) != 0 {
		t.Error("nothing asked for is a resource")
	}
	full := &agentv1.Networking{Mtu: 1400, Addresses: []string{"192.0.2.7/24", "fd00::7/64", "10.0.0.1/24"}, Routes: []*agentv1.Route{
		{To: "10.9.0.0/16", Via: "10.0.0.9"}, {To: "10.8.0.0/16", Via: "192.0.2.1", Metric: 5}, {To: "fd09::/64", Via: "fd00::1"},
	}}
	before := sh(t, "ip address show; ip route show; ip -6 route show")
	guarded := New(state(full), &h)[0].(converge.Guarded)
	undo, err := guarded.Undo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	settle(t, &h, full, "-mtu 1500", "+mtu 1400", "+address 192.0.2.7/24", "+route 10.8.0.0/16 via 192.0.2.1 dev eth0 metric 5", "50-provisionr.conf: missing")
	if out := sh(t, "ip address show eth0; ip route show; ip -6 route show"); !strings.Contains(out, "mtu 1400") || !strings.Contains(out, "192.0.2.7/24") ||
		!strings.Contains(out, "10.8.0.0/16 via 192.0.2.1 dev eth0 proto static metric 5") || !strings.Contains(out, "fd09::/64 via fd00::1") {
		t.Errorf("the kernel has\n%s", out)
	}
	for _, c := range undo.Commands {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v: %s", c, err, out)
		}
	}
	if after := sh(t, "ip address show; ip route show; ip -6 route show"); after != before {
		t.Errorf("after the undo:\n%s\nbefore:\n%s", after, before)
	}
	// The undo put the files back as well on a real machine; here the note says what was ours.
	settle(t, &h, full, "+address 192.0.2.7/24")
	sh(t, "ip address del 192.0.2.7/24 dev eth0")
	settle(t, &h, full, "+address 192.0.2.7/24")
	settle(t, &h, &agentv1.Networking{Addresses: []string{"fd00::7/64"}}, "-mtu 1400", "+mtu 1500", "-address 192.0.2.7/24", "-route 10.9.0.0/16")
	settle(t, &h, nil, "-address fd00::7/64", "50-provisionr.conf: exists, wanted absent")
	if after := sh(t, "ip address show; ip route show; ip -6 route show"); after != before {
		t.Errorf("after all was taken out:\n%s\nbefore:\n%s", after, before)
	}
	if len(New(state(nil), &h)) != 0 {
		t.Error("a note was left")
	}
	unreachable := New(state(&agentv1.Networking{Routes: []*agentv1.Route{{To: "10.9.0.0/16", Via: "203.0.113.1"}}}), &h)[0]
	if err := unreachable.Apply(t.Context()); err == nil {
		t.Error("a route over a router that is no neighbour")
	}
}

func TestBadConfig(t *testing.T) {
	h, _, _ := hosttest.New(t)
	for i, n := range []*agentv1.Networking{
		{Addresses: []string{"10.0.0.1"}},
		{Routes: []*agentv1.Route{{To: "10.0.0.0/8", Via: "fd00::1"}}},
		{Routes: []*agentv1.Route{{To: "10.0.0.0/8; reboot", Via: "10.0.0.1"}}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if _, err := New(state(n), &h)[0].Check(t.Context()); err == nil {
				t.Error("no error")
			}
		})
	}
}
