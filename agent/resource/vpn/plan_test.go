package vpn

import (
	"encoding/base64"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/internal/netlink"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func key(b byte) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune(b)), keySize)))
}

// state is that of machine m-1 with some nodes; the first is itself.
func state(nodes ...*agentv1.VpnNode) *desired.State {
	return &desired.State{
		Machine: &agentv1.MachineComponent{MachineId: "m-1", Cidr: "10.0.0.0/24", Vpn: &agentv1.VpnMember{Cidr: "10.99.0.0/24", Address: "10.99.0.1"}},
		Pool:    &agentv1.PoolComponent{}, VPN: append([]*agentv1.VpnNode{{Name: "a-1", MachineId: "m-1", PublicKey: key('1'), Address: "10.99.0.1", Routes: []string{"10.1.0.0/16"}}}, nodes...),
	}
}

// show is the peers of a plan with what is behind them, and the routes.
func show(t *testing.T, s *desired.State) string {
	t.Helper()
	c, err := plan(s)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, p := range c.peers {
		b.WriteString(p.name + " " + text(p.endpoint) + " " + ranges(p.allowed) + "\n")
	}
	return b.String() + "routes " + ranges(c.routes)
}

func TestPlan(t *testing.T) {
	b2 := &agentv1.VpnNode{Name: "b-2", MachineId: "m-2", PublicKey: key('2'), Address: "10.99.0.2", Endpoint: "10.0.0.2:51820"}
	relay := &agentv1.VpnNode{Name: "r-3", MachineId: "m-3", PublicKey: key('3'), Address: "10.99.0.3", Endpoint: "192.0.2.3:51820", Relay: true}
	far := &agentv1.VpnNode{Name: "f-4", MachineId: "m-4", PublicKey: key('4'), Address: "10.99.0.4", Via: "m-3", Routes: []string{"10.4.0.0/16", "10.99.0.128/25"}}
	admin := &agentv1.VpnNode{Name: "alice", PublicKey: key('5'), Address: "10.99.0.5", Routes: []string{"192.168.7.0/24"}}
	gateway := func(name, id string, k byte) *agentv1.VpnNode {
		return &agentv1.VpnNode{Name: name, MachineId: id, PublicKey: key(k), Address: "10.99.0." + string(rune(k)), Gateway: true, Routes: []string{"10.0.0.0/8", "10.1.0.0/16"}}
	}
	via := func(n *agentv1.VpnNode, id string) *agentv1.VpnNode {
		return &agentv1.VpnNode{Name: n.Name, MachineId: n.MachineId, PublicKey: n.PublicKey, Address: n.Address, Routes: n.Routes, Via: id}
	}
	for name, c := range map[string]struct {
		nodes []*agentv1.VpnNode
		want  string
	}{
		"full mesh":                      {[]*agentv1.VpnNode{relay, b2}, "b-2 10.0.0.2:51820 10.99.0.2/32\nr-3 192.0.2.3:51820 10.99.0.3/32\nroutes "},
		"behind a relay":                 {[]*agentv1.VpnNode{far, relay}, "r-3 192.0.2.3:51820 10.4.0.0/16,10.99.0.3/32,10.99.0.4/32,10.99.0.128/25\nroutes 10.4.0.0/16"},
		"behind ourselves":               {[]*agentv1.VpnNode{via(far, "m-1")}, "f-4 none 10.4.0.0/16,10.99.0.4/32,10.99.0.128/25\nroutes 10.4.0.0/16"},
		"behind a relay that is unknown": {[]*agentv1.VpnNode{via(far, "m-9")}, "f-4 none 10.4.0.0/16,10.99.0.4/32,10.99.0.128/25\nroutes 10.4.0.0/16"},
		"behind a relay behind a relay":  {[]*agentv1.VpnNode{relay, via(b2, "m-3"), via(far, "m-2")}, "r-3 192.0.2.3:51820 10.99.0.2/32,10.99.0.3/32\nroutes "},
		"a person's device":              {[]*agentv1.VpnNode{admin}, "alice none 10.99.0.5/32,192.168.7.0/24\nroutes 192.168.7.0/24"},
		"two gateways, one of ours":      {[]*agentv1.VpnNode{gateway("g-2", "m-7", '7'), gateway("g-1", "m-6", '6')}, "g-1 none 10.0.0.0/8,10.99.0.6/32\ng-2 none 10.99.0.7/32\nroutes 10.0.0.0/8"},
		"no key yet":                     {[]*agentv1.VpnNode{{Name: "x", MachineId: "m-8", Address: "10.99.0.8"}}, "routes "},
		"rubbish key":                    {[]*agentv1.VpnNode{{Name: "x", PublicKey: "AAAA", Address: "10.99.0.8"}}, `cannot use public key "AAAA" of VPN node x`},
		"rubbish endpoint":               {[]*agentv1.VpnNode{{Name: "x", PublicKey: key('8'), Address: "10.99.0.8", Endpoint: "x:y"}}, `cannot use endpoint "x:y" of VPN node x`},
	} {
		if diff := cmp.Diff(c.want, show(t, state(c.nodes...))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Peers that come and go need nobody's confirmation; ranges do.
func TestFingerprint(t *testing.T) {
	guard := func(s *desired.State) string {
		h, _, _ := hosttest.New(t)
		all := New(s, &h)
		return all[len(all)-1].(converge.Guarded).Guard().Fingerprint
	}
	b2 := &agentv1.VpnNode{Name: "b-2", MachineId: "m-2", PublicKey: key('2'), Address: "10.99.0.2"}
	gateway := &agentv1.VpnNode{Name: "b-2", MachineId: "m-2", PublicKey: key('2'), Address: "10.99.0.2", Routes: []string{"10.5.0.0/16"}}
	if alone, two, routed := guard(state()), guard(state(b2)), guard(state(gateway)); alone != two || alone == routed {
		t.Errorf("alone %q, with a peer %q, with a gateway %q", alone, two, routed)
	}
}

func TestUntilThereIsAnAddress(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := state()
	s.Machine.Vpn.Address = ""
	all := New(s, &h)
	if len(all) != 1 {
		t.Fatalf("%d resources", len(all))
	}
	if k, err := PublicKey(&h); k != "" || err != nil {
		t.Errorf("key %q, %v", k, err)
	}
	if d, err := all[0].Check(t.Context()); err != nil || d.Empty() {
		t.Errorf("before: %q, %v", d.Text, err)
	}
	if err := all[0].Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, err := PublicKey(&h)
	if err != nil || len(first) != 44 {
		t.Errorf("key %q, %v", first, err)
	}
	if err := all[0].Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again, err := PublicKey(&h); again != first || err != nil {
		t.Errorf("another key %q, %v", again, err)
	}
	raw, err := readKey(&h)
	if err != nil || wgtypes.Key(raw.Bytes()).PublicKey().String() != first {
		t.Errorf("WireGuard's own public key is another one, %v", err)
	}
}

// TestCompare shows that only what differs is configured.
func TestCompare(t *testing.T) {
	h, _, _ := hosttest.New(t)
	private, err := makeKey(&h)
	if err != nil {
		t.Fatal(err)
	}
	c := config{port: 51820, keepalive: true, peers: []peer{{
		name: "b-2", key: [keySize]byte{2}, endpoint: netip.MustParseAddrPort("10.0.0.2:51820"), allowed: []netip.Prefix{netip.MustParsePrefix("10.99.0.2/32")},
	}}}
	now := time.Unix(1e9, 0)
	right := func() *device {
		return &device{private: [keySize]byte(private.Bytes()), port: 51820, peers: []devicePeer{{
			key: [keySize]byte{2}, endpoint: c.peers[0].endpoint, keepalive: keepaliveEvery, handshake: now, allowed: c.peers[0].allowed,
		}}}
	}
	for name, tt := range map[string]struct {
		spoil func(*device)
		lines int
		peers int
	}{
		"as desired":             {func(*device) {}, 0, 0},
		"roamed and alive":       {func(d *device) { d.peers[0].endpoint = netip.MustParseAddrPort("192.0.2.9:9") }, 0, 0},
		"elsewhere and lost":     {func(d *device) { d.peers[0].endpoint, d.peers[0].handshake = netip.AddrPort{}, time.Time{} }, 2, 1},
		"another key":            {func(d *device) { d.private = [keySize]byte{9} }, 1, 0},
		"another port":           {func(d *device) { d.port = 9 }, 2, 0},
		"a peer too many":        {func(d *device) { d.peers = append(d.peers, devicePeer{key: [keySize]byte{7}}) }, 1, 1},
		"a peer too few":         {func(d *device) { d.peers = nil }, 1, 1},
		"other ranges behind it": {func(d *device) { d.peers[0].allowed = nil }, 2, 1},
		"no keepalive":           {func(d *device) { d.peers[0].keepalive = 0 }, 2, 1},
	} {
		d := right()
		tt.spoil(d)
		change, lines := c.compare(d, private, now)
		if len(lines) != tt.lines || len(change.peers) != tt.peers {
			t.Errorf("%s: %q, %+v", name, lines, change)
		}
		for _, line := range lines {
			if strings.Contains(line, base64.StdEncoding.EncodeToString(private.Bytes())) {
				t.Errorf("%s: the private key is shown", name)
			}
		}
	}
}

func TestNoProgram(t *testing.T) {
	h, _, _ := hosttest.New(t)
	tun := &tunnel{host: &h}
	if err := tun.startProgram(t.Context()); err == nil || !strings.Contains(err.Error(), "no WireGuard") {
		t.Errorf("got %v", err)
	}
}

func TestForwardingGoesBackToWhatItWas(t *testing.T) {
	for before, after := range map[string]string{"0\n": "0\n", "1\n": "1\n"} {
		h, _, _ := hosttest.New(t)
		if err := h.MkdirAll("/proc/sys/net/ipv4", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := h.WriteFile(forward4, []byte(before), host.Attributes{}); err != nil {
			t.Fatal(err)
		}
		on := &tunnel{host: &h, config: config{address: netip.MustParsePrefix("10.99.0.1/24"), forward: true}}
		if err := on.applyForwarding(); err != nil {
			t.Fatal(err)
		}
		if d, err := on.checkForwarding(); d != "" || err != nil {
			t.Errorf("on: %q, %v", d, err)
		}
		off := &tunnel{host: &h}
		if err := off.applyForwarding(); err != nil {
			t.Fatal(err)
		}
		if got, err := h.ReadFile(forward4); string(got) != after || err != nil {
			t.Errorf("it was %q and is %q, %v", before, got, err)
		}
	}
}

// TestBatches shows that whatever the change, every message fits, and all ranges arrive.
func TestBatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var changes []peerChange
		total := 0
		for i, n := range rapid.SliceOfN(rapid.IntRange(0, 2000), 0, 300).Draw(t, "ranges") {
			changes = append(changes, peerChange{key: [keySize]byte{byte(i), byte(i >> 8)}, replace: true, allowed: make([]netip.Prefix, n%(1+rapid.IntRange(1, 2000).Draw(t, "n")))})
			for j := range changes[i].allowed {
				changes[i].allowed[j] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 15: byte(j)}), 128)
			}
			total += len(changes[i].allowed)
		}
		first := make(map[[keySize]byte]bool)
		for _, batch := range batches(changes) {
			size := 0
			for _, p := range batch {
				if p.replace == first[p.key] {
					t.Fatalf("ranges of a peer are replaced by later ones, or not at first: %v", p.replace)
				}
				first[p.key] = true
				size += 4 + len(p.encode())
				total -= len(p.allowed)
			}
			if size > 1<<16-1 {
				t.Fatalf("a batch of %d bytes", size)
			}
		}
		if total != 0 || len(first) != len(changes) {
			t.Fatalf("%d ranges too few, %d peers of %d", total, len(first), len(changes))
		}
	})
}

// FuzzDevice reads what the kernel might say.
func FuzzDevice(f *testing.F) {
	p := peerChange{key: [keySize]byte{1}, endpoint: netip.MustParseAddrPort("[fd00::1]:9"), allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Add(netlink.Attribute(unix.WGDEVICE_A_PEERS, netlink.Attribute(0, p.encode())))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d device
		if err := d.add(b); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}

// What is encoded for the kernel is what is read from it.
func TestPeerThereAndBack(t *testing.T) {
	interval := keepaliveEvery
	for _, at := range []string{"[fd00::1]:9", "192.0.2.1:51820"} {
		p := peerChange{key: [keySize]byte{1}, endpoint: netip.MustParseAddrPort(at), keepalive: &interval, allowed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64")}}
		var d device
		if err := d.add(netlink.Attribute(unix.WGDEVICE_A_PEERS, netlink.Attribute(0, p.encode()))); err != nil {
			t.Fatal(err)
		}
		want := []devicePeer{{key: p.key, endpoint: p.endpoint, keepalive: interval, allowed: p.allowed}}
		if !reflect.DeepEqual(d.peers, want) {
			t.Errorf("got %+v, want %+v", d.peers, want)
		}
	}
}

func TestAnInterfaceIsRemovedAlsoWithoutItsKey(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := &desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{}}
	if list := New(s, &h); len(list) > 0 {
		t.Errorf("never in one: %d resources", len(list))
	}
	if err := (&tunnel{host: &h}).markInstalled(); err != nil {
		t.Fatal(err)
	}
	if list := New(s, &h); len(list) != 1 {
		t.Errorf("%d resources", len(list))
	}
}

func TestTheCheckDoesNotFetchTheProgram(t *testing.T) {
	h, _, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded", Active: "active"})
	s := state()
	s.Machine.Programs = map[string][]byte{program + "/" + runtime.GOARCH: make([]byte, 32)}
	// There is no store of programs at all.
	tn := &tunnel{host: &h, path: programPath(s)}
	if d, err := tn.checkUnit(t.Context()); err != nil || !strings.Contains(d, "ExecStart=/usr/local/lib/provisionr/wireguard-000000000000 %i") {
		t.Errorf("%q, %v", d, err)
	}
}
