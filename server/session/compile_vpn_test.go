package session

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// rows writes rows of the state, past the rules of the FSM.
func rows(t testing.TB, store *state.Store, rows ...any) {
	t.Helper()
	tx := store.Begin()
	for _, row := range rows {
		tx.Put(row)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	store.Publish()
}

func poolRow(name string, generation uint64, spec *provisionrv1.PoolSpec) *provisionrv1.Pool {
	spec.Os = &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}
	return &provisionrv1.Pool{
		ApiVersion: "provisionr/v1", Kind: "Pool", Spec: spec, Metadata: &provisionrv1.Metadata{Name: name, Uid: "u-" + name, Generation: generation},
	}
}

// vpnRows are a Vpn and pools of machines attached to it.
func vpnRows(meshLimit uint32, pools map[string]*provisionrv1.PoolVpn, size uint32) []any {
	out := []any{
		&provisionrv1.Vpn{Metadata: named("wg"), Spec: &provisionrv1.VpnSpec{Cidr: "10.99.0.0/16", MeshLimit: meshLimit, Routes: []string{"10.0.0.0/8"}}},
		&provisionrv1.VpnPeer{Metadata: named("laptop"), Spec: &provisionrv1.VpnPeerSpec{Vpn: "wg", PublicKey: "key-laptop", Routes: []string{"192.168.7.0/24"}}, Address: "10.99.255.1"},
	}
	n := 0
	for _, pool := range sortedKeys(pools) {
		n++
		pools[pool].Name = "wg"
		out = append(out, poolRow(pool, 1, &provisionrv1.PoolSpec{Size: size, Vpn: pools[pool]}))
		for i := range size {
			slot := fmt.Sprintf("%s-%d", pool, i+1)
			out = append(out,
				&provisionrv1.Slot{Metadata: named(slot), Pool: pool, Index: i + 1, Holder: "m-" + slot, Fqdn: slot + ".p.internal"},
				&provisionrv1.Machine{
					Metadata: named("m-" + slot), Spec: &provisionrv1.MachineSpec{Pool: pool, Slot: slot, Index: i + 1, Fqdn: slot + ".p.internal"},
					Status: &provisionrv1.MachineStatus{
						Phase: provisionrv1.Phase_PHASE_READY, Address: fmt.Sprintf("10.%d.0.%d", n, i+1), Vpn: "wg", VpnAddress: fmt.Sprintf("10.99.%d.%d", n, i+1),
						Facts: &provisionrv1.Facts{VpnPublicKey: "key-" + slot},
					},
				})
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func vpnSeenBy(t testing.TB, s *state.Snapshot, id string) map[string]*agentv1.VpnNode {
	t.Helper()
	c, err := Compile(s, id)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*agentv1.VpnNode{}
	for _, n := range decode(t, c, "vpn", &agentv1.VpnComponent{}).GetNodes() {
		out[n.GetName()] = n
	}
	return out
}

func TestVpn(t *testing.T) {
	store := state.New()
	rows(t, store, vpnRows(0, map[string]*provisionrv1.PoolVpn{
		"edge": {Relay: true, Gateway: true}, "home": {BehindNat: true}, "web": {}, "aside": {},
	}, 2)...)
	aside := poolRow("aside", 2, &provisionrv1.PoolSpec{Size: 2, Vpn: &provisionrv1.PoolVpn{Name: "other"}})
	rows(t, store, aside)
	s := store.Read()
	c, err := Compile(s, "m-web-1")
	if err != nil {
		t.Fatal(err)
	}
	want := parse(t, `name: "wg" cidr: "10.99.0.0/16" port: 51820 mtu: 1420 address: "10.99.4.1" routes: "10.0.0.0/8"`, &agentv1.VpnMember{})
	if got := decode(t, c, "machine", &agentv1.MachineComponent{}).GetVpn(); !proto.Equal(got, want) {
		t.Errorf("member %v, want %v", got, want)
	}
	web, home, edge := vpnSeenBy(t, s, "m-web-1"), vpnSeenBy(t, s, "m-home-1"), vpnSeenBy(t, s, "m-edge-1")
	if len(web) != 7 {
		t.Fatalf("%d nodes: %v", len(web), sortedKeys(web))
	}
	if n := web["web-2"]; n.GetEndpoint() != "10.4.0.2:51820" || n.GetPublicKey() != "key-web-2" || n.GetVia() != "" || n.GetAddress() != "10.99.4.2" {
		t.Errorf("a machine is %v", n)
	}
	if n := web["home-1"]; n.GetEndpoint() != "" || n.GetVia() != "" || !n.GetBehindNat() {
		t.Errorf("a machine behind NAT is %v to one that it can call", n)
	}
	if n := web["laptop"]; n.GetMachineId() != "" || n.GetVia() != "" || !slices.Equal(n.GetRoutes(), []string{"192.168.7.0/24"}) {
		t.Errorf("a peer is %v", n)
	}
	relays := []string{"m-edge-1", "m-edge-2"}
	if a, b := home["home-2"].GetVia(), vpnSeenBy(t, s, "m-home-2")["home-1"].GetVia(); a != b || !slices.Contains(relays, a) {
		t.Errorf("home-1 reaches home-2 through %q, and back through %q", a, b)
	}
	var laptop *agentv1.VpnNode
	for _, n := range VpnNodes(s, "wg", "laptop") {
		if n.GetName() == "home-1" {
			laptop = n
		}
	}
	if a, b := home["laptop"].GetVia(), laptop.GetVia(); a != b || !slices.Contains(relays, a) {
		t.Errorf("home-1 reaches the laptop through %q, and back through %q", a, b)
	}
	if home["web-1"].GetVia() != "" || edge["home-1"].GetVia() != "" {
		t.Error("a relay where none is needed")
	}
	var gateways int
	for _, n := range web {
		if slices.Contains(n.GetRoutes(), "10.0.0.0/8") {
			gateways++
		}
	}
	if gateways != 1 || len(edge["edge-1"].GetRoutes())+len(edge["edge-2"].GetRoutes()) > 0 {
		t.Errorf("%d gateways have the routes", gateways)
	}
	if VpnNodes(s, "none", "laptop") != nil {
		t.Error("a vpn that does not exist has nodes")
	}
}

// TestVpnBeyondTheMesh: whoever is no relay has one peer, and both ways of a pair lead over the same relays.
func TestVpnBeyondTheMesh(t *testing.T) {
	store := state.New()
	all := vpnRows(5, map[string]*provisionrv1.PoolVpn{"edge": {Relay: true}, "db": {Gateway: true}, "web": {BehindNat: true}, "app": {}}, 3)
	rows(t, store, all...)
	s := store.Read()
	homes := map[string]string{}
	for _, pool := range []string{"app", "db", "web"} {
		nodes := vpnSeenBy(t, s, "m-"+pool+"-1")
		for name, n := range nodes {
			switch {
			case n.GetVia() == "":
				if homes[pool] = n.GetMachineId(); !n.GetRelay() || n.GetRoutes()[0] != "10.99.0.0/16" {
					t.Errorf("%s has the peer %v", pool, n)
				}
			case n.GetVia() != homes[pool] && homes[pool] != "", len(n.GetRoutes()) == 0:
				t.Errorf("%s is told of %s: %v", pool, name, n)
			}
		}
		// The relay, the laptop with its routes and, but for gateways, the gateway with its own.
		if want := map[string]int{"app": 3, "db": 2, "web": 3}[pool]; len(nodes) != want || nodes["laptop"].GetVia() != homes[pool] {
			t.Errorf("%s is told of %v", pool, sortedKeys(nodes))
		}
	}
	laptop := VpnNodes(s, "wg", "laptop")
	if len(laptop) != 2 || laptop[0].GetVia()+laptop[1].GetVia() == "" {
		t.Fatalf("the laptop is told of %v", laptop)
	}
	homes["laptop"] = cmp.Or(laptop[0].GetVia(), laptop[1].GetVia())
	for i := range 3 {
		relay := vpnSeenBy(t, s, fmt.Sprintf("m-edge-%d", i+1))
		if len(relay) != 13 || relay["edge-2"].GetVia() != "" || slices.Contains(relay["edge-1"].GetRoutes(), "10.99.0.0/16") {
			t.Errorf("a relay is told of %v", relay)
		}
		for end, home := range map[string]string{"app-2": homes["app"], "db-1": homes["db"], "web-3": homes["web"], "laptop": homes["laptop"]} {
			if relay[end].GetVia() != home {
				t.Errorf("edge-%d has %s behind %q, not %q", i+1, end, relay[end].GetVia(), home)
			}
		}
	}
	c, err := Compile(s, "m-app-1")
	if err != nil {
		t.Fatal(err)
	}
	if m := decode(t, c, "members/app/0", &agentv1.MemberChunk{}).GetMembers()[1]; m.GetVpnAddress() == "" {
		t.Errorf("a member that is no node has no address in the VPN: %v", m)
	}
	for _, row := range all {
		if m, ok := row.(*provisionrv1.Machine); ok && m.GetMetadata().GetName() == homes["app"] {
			m = proto.CloneOf(m)
			m.Status.Phase = provisionrv1.Phase_PHASE_UNREACHABLE
			rows(t, store, m)
		}
	}
	for _, n := range vpnSeenBy(t, store.Read(), "m-app-1") {
		if n.GetVia() == "" && (n.GetMachineId() == homes["app"] || !n.GetRelay()) {
			t.Errorf("with %s lost the relay is %v", homes["app"], n)
		}
	}
}

// TestVpnJoin: beyond the mesh a machine that joins changes nothing for those that are no relays, and in it one component.
func TestVpnJoin(t *testing.T) {
	for limit, changes := range map[uint32]bool{5: false, 64: true} {
		store := state.New()
		rows(t, store, vpnRows(limit, map[string]*provisionrv1.PoolVpn{"edge": {Relay: true}, "db": {}, "web": {}}, 3)...)
		before, _ := Compile(store.Read(), "m-web-1")
		m := proto.CloneOf(store.Read().Machine("m-db-3"))
		m.Status.VpnAddress, m.Status.Facts = "10.99.77.1", &provisionrv1.Facts{VpnPublicKey: "key-new"}
		rows(t, store, m)
		after, err := Compile(store.Read(), "m-web-1")
		if err != nil || (before.Hash() != after.Hash()) != changes {
			t.Errorf("with limit %d: %v", limit, err)
		}
		m = proto.CloneOf(m)
		m.Status.Quarantined = "cloned"
		rows(t, store, m)
		if nodes := vpnSeenBy(t, store.Read(), "m-edge-1"); nodes["db-3"] != nil || nodes["db-2"] == nil {
			t.Error("a quarantined machine is in the VPN")
		}
	}
}

// TestCompileReferences: what a pool refers to is in its component, and a change of it changes the component.
func TestCompileReferences(t *testing.T) {
	l := newLog(t)
	template := `{{ secret "db" }}{{ secret "api" }}`
	l.must(t, apply(poolObject("web", &provisionrv1.PoolSpec{Size: 1, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}})))
	id := l.launch(t, "web", 1)
	spec := &provisionrv1.PoolSpec{
		Size: 1, Roles: []string{"front"},
		Files: []*provisionrv1.File{{Path: "/etc/s", Secret: "tls"}, {Path: "/etc/t", Template: &template}, {Path: "/srv", Directory: true}, {Path: "/l", Link: "/srv"}},
		Firewall: &provisionrv1.Firewall{
			Rules: []*provisionrv1.FirewallRule{
				{Name: "a", Ports: []string{"80"}, From: []string{"role:data", "machine:zk-2", "vpn"}},
				{Name: "b", Ports: []string{"81"}, From: []string{"any"}, Drop: true},
			},
			Egress: []*provisionrv1.EgressRule{{Name: "out", Ports: []string{"443"}, To: []string{"any", "pool:zk"}}},
		},
	}
	row := poolRow("web", 9, spec)
	row.Metadata.Uid = l.store.Read().Pool("web").GetMetadata().GetUid()
	rows(t, l.store, row, &provisionrv1.Secret{Metadata: named("db"), Revision: 3})
	var shared Compiler
	read := func() *Compiled {
		t.Helper()
		c, err := shared.Compile(l.store.Read(), id)
		if err != nil {
			t.Fatal(err)
		}
		if fresh := DesiredHash(l.store.Read(), id); fresh != c.Hash() {
			t.Fatal("the cache changes the hash")
		}
		return c
	}
	first := read()
	pool := decode(t, first, "pool", &agentv1.PoolComponent{})
	want := parse(t, `secrets { name: "api" } secrets { name: "db" revision: 3 } secrets { name: "tls" }
		files { path: "/etc/s" secret: "tls" mode: 384 owner: "root" group: "root" }
		files { path: "/etc/t" template: "{{ secret \"db\" }}{{ secret \"api\" }}" mode: 384 owner: "root" group: "root" }
		files { path: "/srv" directory: true mode: 493 owner: "root" group: "root" }
		files { path: "/l" link: "/srv" mode: 420 owner: "root" group: "root" }
		firewall { enabled: true
			rules { name: "ssh" protocol: "tcp" ports { first: 22 last: 22 } cidrs: "0.0.0.0/0" cidrs: "::/0" }
			rules { name: "a" protocol: "tcp" ports { first: 80 last: 80 } machines: "zk-2" vpn: true }
			rules { name: "b" protocol: "tcp" ports { first: 81 last: 81 } cidrs: "0.0.0.0/0" cidrs: "::/0" drop: true }
			egress { name: "out" protocol: "tcp" ports { first: 443 last: 443 } cidrs: "0.0.0.0/0" cidrs: "::/0" pools: "zk" } }`, &agentv1.PoolComponent{})
	got := &agentv1.PoolComponent{Secrets: pool.GetSecrets(), Files: pool.GetFiles(), Firewall: pool.GetFirewall()}
	if !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	decode(t, first, "members/zk/0", &agentv1.MemberChunk{})

	rows(t, l.store, &provisionrv1.Secret{Metadata: named("unrelated"), Revision: 1})
	if read().Hash() != first.Hash() {
		t.Error("a secret that it does not refer to changes the hash")
	}
	rows(t, l.store, &provisionrv1.Secret{Metadata: named("tls"), Revision: 1})
	second := read()
	if second.Hash() == first.Hash() {
		t.Error("a new value of a secret does not change the hash")
	}
	rows(t, l.store, poolRow("disks", 1, &provisionrv1.PoolSpec{Size: 1, Roles: []string{"data"}}))
	rules := decode(t, read(), "pool", &agentv1.PoolComponent{}).GetFirewall().GetRules()
	if !slices.Equal(rules[1].GetPools(), []string{"disks"}) {
		t.Errorf("the role stands for %v", rules[1].GetPools())
	}

	proposed := proto.CloneOf(row)
	proposed.Spec.Roles = []string{"data"}
	c, err := shared.Propose(l.store.Read(), id, proposed)
	if err != nil {
		t.Fatal(err)
	}
	if rules := decode(t, c, "pool", &agentv1.PoolComponent{}).GetFirewall().GetRules(); !slices.Equal(rules[1].GetPools(), []string{"disks", "web"}) {
		t.Errorf("proposed, the role stands for %v", rules[1].GetPools())
	}
	if len(c.Components()) != len(c.Desired.GetComponents()) || read().Hash() == c.Hash() {
		t.Error("a proposal is kept")
	}
}

// TestProgramsAreNotAsked: what a member has for a machine to run is told and changes no hash of what is desired.
func TestProgramsAreNotAsked(t *testing.T) {
	l := newLog(t)
	id := l.launch(t, "zk", 1)
	wire := append([]byte{0, 0, 0, 11}, "ssh-ed25519....."...)
	rows(t, l.store,
		&raftlogv1.Authority{Id: "ssh-1", Purpose: "ssh", Certificate: wire}, &raftlogv1.Authority{Id: "old", Purpose: "ssh", Certificate: append([]byte{0, 0, 0, 11}, "ssh-ed25519 old"...), State: "retired"},
		&raftlogv1.Authority{Id: "broken", Purpose: "ssh", Certificate: []byte{0, 0, 1}},
		&raftlogv1.Authority{Id: "tls", Certificate: wire})
	s := l.store.Read()
	with := Compiler{Programs: map[string][]byte{"wireguard/amd64": {1}, "wireguard/arm64": {2}}}
	a, errA := with.Compile(s, id)
	b, errB := Compile(s, id)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if a.Hash() != b.Hash() || a.revision == b.revision {
		t.Error("programs must change the revision and nothing else")
	}
	m := decode(t, a, "machine", &agentv1.MachineComponent{})
	if len(m.GetPrograms()) != 2 || !slices.Equal(m.GetSshAuthorities(), []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5Li4uLi4="}) {
		t.Errorf("the machine is told %v", m)
	}
}
