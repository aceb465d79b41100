package session

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

func putMember(m *provisionrv1.Member) *raftlogv1.Command {
	return &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: m}}}
}

func decode[M proto.Message](t testing.TB, c *Compiled, name string, into M) M {
	t.Helper()
	for _, ref := range c.Desired.GetComponents() {
		if ref.GetName() != name {
			continue
		}
		body, ok := c.Body(ref.GetHash())
		if sum := sha256.Sum256(body); !ok || !bytes.Equal(sum[:], ref.GetHash()) {
			t.Fatalf("component %s does not have its hash", name)
		}
		if err := proto.Unmarshal(body, into); err != nil {
			t.Fatal(err)
		}
		return into
	}
	t.Fatalf("no component %s in %v", name, c.Desired)
	return into
}

func parse[M proto.Message](t testing.TB, text string, into M) M {
	t.Helper()
	if err := prototext.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
	return into
}

func TestCompile(t *testing.T) {
	l := newLog(t)
	enabled := true
	content, template := "hello", "{{ .Machine.Name }}"
	l.must(t, apply(
		poolObject("client", &provisionrv1.PoolSpec{Size: 1, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}}),
		poolObject("web", &provisionrv1.PoolSpec{
			Size: 2, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}, Aliases: []string{"www"},
			Packages: []*provisionrv1.Package{{Name: "nginx", Version: "1.22"}, {Name: "telnet", Absent: true}},
			Files: []*provisionrv1.File{
				{Path: "/etc/motd", Content: &content}, {Path: "/etc/t", Template: &template, Mode: "0600", Owner: "www-data"}, {Path: "/etc/no", Absent: true},
			},
			Users:     []*provisionrv1.UserAccount{{Name: "ann", SshKeys: []string{"ssh-ed25519 AAAA"}, Admin: true}},
			Services:  []*provisionrv1.Service{{Name: "nginx"}, {Name: "apt-daily.timer", State: "stopped"}, {Name: "x@y.1", State: "stopped", Enabled: &enabled}},
			Variables: map[string]string{"a": "b"},
			Firewall: &provisionrv1.Firewall{Rules: []*provisionrv1.FirewallRule{
				{Name: "web", Ports: []string{"80", "8000-8010"}, From: []string{"any"}},
				{Name: "peers", Protocol: "udp", Ports: []string{"7946"}, From: []string{"self", "pool:client", "network", "192.0.2.7", "198.51.100.9/24", "fd00::1", "pool:none"}},
			}},
			Ntp: &provisionrv1.Ntp{MaxOffset: durationpb.New(time.Second)},
		}),
	))
	id := l.launch(t, "web", 2)
	l.launch(t, "client", 1)
	c, err := Compile(l.store.Read(), id)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, ref := range c.Desired.GetComponents() {
		names = append(names, ref.GetName())
	}
	if diff := cmp.Diff([]string{"machine", "members/client/0", "members/web/0", "pool"}, names); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
	wantMachine := parse(t, `machine_id: "m-web-2" name: "web-2" fqdn: "web-2.p.internal" index: 2 pool: "web" domain: "p.internal"
		address: "10.88.0.2" cidr: "10.88.0.0/24" ntp_servers: "10.88.0.1" dns_servers: "10.88.0.1:5353" http_proxy: "http://10.88.0.1:3142"
		zones: "0.88.10.in-addr.arpa" zones: "p.internal" os { distribution: "debian" release: "12" }
		shared_kernel: true server_ranges: "10.88.0.1/32" server_ranges: "192.0.2.1/32"`, &agentv1.MachineComponent{})
	if diff := cmp.Diff(wantMachine, decode(t, c, "machine", &agentv1.MachineComponent{}), protocmp.Transform()); diff != "" {
		t.Errorf("machine (-want +got):\n%s", diff)
	}
	wantPool := parse(t, `name: "web" aliases: "www" variables { key: "a" value: "b" } max_clock_offset { seconds: 1 } ssh { certificates: true }
		packages { name: "nginx" version: "1.22" } packages { name: "telnet" absent: true }
		files { path: "/etc/motd" content: "hello" mode: 420 owner: "root" group: "root" }
		files { path: "/etc/t" template: "{{ .Machine.Name }}" mode: 384 owner: "www-data" group: "root" }
		files { path: "/etc/no" absent: true mode: 420 owner: "root" group: "root" }
		users { name: "ann" ssh_keys: "ssh-ed25519 AAAA" admin: true shell: "/bin/bash" }
		services { name: "nginx.service" running: true enabled: true } services { name: "apt-daily.timer" } services { name: "x@y.1.service" enabled: true }
		firewall { enabled: true
			rules { name: "ssh" protocol: "tcp" ports { first: 22 last: 22 } cidrs: "0.0.0.0/0" cidrs: "::/0" }
			rules { name: "web" protocol: "tcp" ports { first: 80 last: 80 } ports { first: 8000 last: 8010 } cidrs: "0.0.0.0/0" cidrs: "::/0" }
			rules { name: "peers" protocol: "udp" ports { first: 7946 last: 7946 } cidrs: "10.88.0.0/24" cidrs: "192.0.2.7/32" cidrs: "198.51.100.0/24"
				cidrs: "fd00::1/128" pools: "client" pools: "none" pools: "web" } }`, &agentv1.PoolComponent{})
	if diff := cmp.Diff(wantPool, decode(t, c, "pool", &agentv1.PoolComponent{}), protocmp.Transform()); diff != "" {
		t.Errorf("pool (-want +got):\n%s", diff)
	}
	wantMembers := parse(t, `pool: "web" members { name: "web-1" fqdn: "web-1.p.internal" index: 1 }
		members { name: "web-2" fqdn: "web-2.p.internal" index: 2 address: "10.88.0.2" machine_id: "m-web-2" }`, &agentv1.MemberChunk{})
	if diff := cmp.Diff(wantMembers, decode(t, c, "members/web/0", &agentv1.MemberChunk{}), protocmp.Transform()); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

// TestCompileIsDeterministic: the hash depends on the state alone, and the cache changes nothing.
func TestCompileIsDeterministic(t *testing.T) {
	l := newLog(t)
	variables := map[string]string{}
	for i := range 20 {
		variables[fmt.Sprint("v", i)] = "x"
	}
	spec := &provisionrv1.PoolSpec{Size: 2, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}, Variables: variables}
	l.must(t, apply(poolObject("web", spec)))
	id := l.launch(t, "web", 1)
	var shared Compiler
	check := func() (hash string) {
		t.Helper()
		s := l.store.Read()
		hash = DesiredHash(s, id)
		for range 5 {
			if again := DesiredHash(s, id); again != hash || shared.DesiredHash(s, id) != hash {
				t.Fatal("another hash for the same state")
			}
		}
		return hash
	}
	first := check()
	l.must(t, apply(poolObject("other", spec)))
	if check() != first {
		t.Error("another pool changes the hash")
	}
	l.launch(t, "web", 2)
	second := check()
	if second == first {
		t.Error("a new member does not change the hash")
	}
	spec = proto.CloneOf(spec)
	spec.Variables["v0"] = "y"
	l.must(t, apply(poolObject("web", spec)))
	if check() == second {
		t.Error("a new generation does not change the hash")
	}
	if DesiredHash(l.store.Read(), "m-none") != "" {
		t.Error("a machine that does not exist has a hash")
	}
	if _, err := Compile(l.store.Read(), "m-none"); !errs.Is(err, errs.NotFound) {
		t.Errorf("error %v", err)
	}
}

// TestChunks: a change of one member touches one chunk of 256.
func TestChunks(t *testing.T) {
	l := newLog(t)
	l.must(t, apply(poolObject("big", &provisionrv1.PoolSpec{Size: 600, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}})))
	parts := func(s *state.Snapshot) map[string]string {
		chunks, err := newView(s, nil).chunks("big")
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, p := range chunks {
			out[p.ref.GetName()] = string(p.ref.GetHash())
		}
		return out
	}
	before := parts(l.store.Read())
	if len(before) != 3 {
		t.Fatalf("%d chunks of 600 slots", len(before))
	}
	l.launch(t, "big", 257)
	after := parts(l.store.Read())
	for name, changes := range map[string]bool{"members/big/0": false, "members/big/1": true, "members/big/2": false} {
		if (before[name] != after[name]) != changes {
			t.Errorf("%s: changed %v, want %v", name, !changes, changes)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	l := newLog(b)
	l.must(b, apply(poolObject("big", &provisionrv1.PoolSpec{Size: 200, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}})))
	var ids []string
	for i := range uint32(200) {
		ids = append(ids, l.launch(b, "big", i+1))
	}
	s := l.store.Read()
	for b.Loop() {
		var c Compiler
		for _, id := range ids {
			if c.DesiredHash(s, id) == "" {
				b.Fatal("no hash")
			}
		}
	}
}

// TestHeir gives an heir its own address under the slot's name, while its peers see the holder alone.
func TestHeir(t *testing.T) {
	l := newLog(t)
	store := l.store.Read()
	if store.Cluster().GetFeatureLevel() < 2 {
		l.must(t, &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: leveled(store.Member("s1"), 2)}}})
		l.must(t, &raftlogv1.Command{Kind: &raftlogv1.Command_SetFeatureLevel{SetFeatureLevel: &raftlogv1.SetFeatureLevel{Level: 2}}})
	}
	l.must(t, apply(poolObject("duo", &provisionrv1.PoolSpec{Size: 2, Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}})))
	create := func(id string, index uint32, heir bool) {
		l.must(t, &raftlogv1.Command{Kind: &raftlogv1.Command_CreateMachine{CreateMachine: &raftlogv1.CreateMachine{
			Id: id, Pool: "duo", Index: index, PoolGeneration: 1, Heir: heir,
		}}})
	}
	create("m-1", 1, false)
	create("m-2", 2, false)
	before := compiled(t, l, "m-2")
	create("m-heir", 1, true)
	heir := compiled(t, l, "m-heir")
	own := decode(t, heir, "machine", &agentv1.MachineComponent{})
	address := l.store.Read().Machine("m-heir").GetStatus().GetAddress()
	if own.GetName() != "duo-1" || own.GetMachineId() != "m-heir" || own.GetAddress() != address || address == "" {
		t.Errorf("the heir is told %v", own)
	}
	if after := compiled(t, l, "m-2"); after.Hash() != before.Hash() {
		t.Error("a peer is told of an heir")
	}
	l.must(t, &raftlogv1.Command{Kind: &raftlogv1.Command_HandOver{HandOver: &raftlogv1.HandOver{Slot: "duo-1", Holder: "m-1", Heir: "m-heir"}}})
	members := decode(t, compiled(t, l, "m-2"), "members/duo/0", &agentv1.MemberChunk{})
	if m := members.GetMembers()[0]; m.GetMachineId() != "m-heir" || m.GetAddress() != address {
		t.Errorf("after the handover the peer sees %v", m)
	}
	if compiled(t, l, "m-heir").Hash() == heir.Hash() {
		t.Error("the heir does not learn that it has the name")
	}
}

func leveled(m *provisionrv1.Member, level uint32) *provisionrv1.Member {
	m = proto.CloneOf(m)
	m.FeatureLevel = level
	return m
}

func compiled(t testing.TB, l *log, id string) *Compiled {
	t.Helper()
	c, err := Compile(l.store.Read(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
