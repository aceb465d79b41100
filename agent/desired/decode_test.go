package desired_test

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// parts are the messages that a test changes before it encodes them.
type parts struct {
	machine *agentv1.MachineComponent
	pool    *agentv1.PoolComponent
	chunks  []*agentv1.MemberChunk
	ready   *agentv1.MemberChunk
	vpn     *agentv1.VpnComponent
}

func example() *parts {
	return &parts{
		machine: &agentv1.MachineComponent{
			MachineId: "m-aaaabbbbccccdddd", Name: "zk-2", Fqdn: "zk-2.provisionr.internal", Index: 2, Pool: "zk", Domain: "provisionr.internal",
			Address: "10.88.0.12", Cidr: "10.88.0.0/24", NtpServers: []string{"10.88.0.1"}, DnsServers: []string{"10.88.0.1:5353"},
			Zones: []string{"provisionr.internal", "0.88.10.in-addr.arpa"},
		},
		pool: &agentv1.PoolComponent{
			Name:     "zk",
			Packages: []*agentv1.Package{{Name: "zookeeperd"}, {Name: "tmux", Version: "3.3a-3"}},
			Files:    []*agentv1.File{{Path: "/etc/motd", Source: &agentv1.File_Content{Content: []byte("hello\n")}, Mode: 0o644, Owner: "root", Group: "root"}},
			Users:    []*agentv1.User{{Name: "ada", SshKeys: []string{"ssh-ed25519 AAAA ada"}, Admin: true}},
			Firewall: &agentv1.Firewall{Enabled: true, Rules: []*agentv1.FirewallRule{{Name: "ssh", Protocol: "tcp",
				Ports: []*agentv1.PortRange{{First: 22, Last: 22}}, Cidrs: []string{"0.0.0.0/0", "::/0"}}}},
			Services: []*agentv1.Service{{Name: "zookeeper.service", Running: true, Enabled: true}},
		},
		chunks: []*agentv1.MemberChunk{{Pool: "zk", Members: []*agentv1.Member{
			{Name: "zk-3", Fqdn: "zk-3.provisionr.internal", Index: 3},
			{Name: "zk-2", Fqdn: "zk-2.provisionr.internal", Index: 2, Address: "10.88.0.12", MachineId: "m-aaaabbbbccccdddd"},
			{Name: "zk-1", Fqdn: "zk-1.provisionr.internal", Index: 1, Address: "10.88.0.11", MachineId: "m-eeeeffffgggghhhh"},
		}}},
		ready: &agentv1.MemberChunk{Pool: "zk", Members: []*agentv1.Member{{Index: 1}, {Index: 9}}},
	}
}

func (p *parts) encode(t testing.TB) (*agentv1.Desired, func([]byte) ([]byte, bool)) {
	t.Helper()
	bodies := make(map[string][]byte)
	d := &agentv1.Desired{Hash: bytes.Repeat([]byte{7}, sha256.Size), PoolGeneration: 4}
	add := func(name string, m proto.Message) {
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(body)
		bodies[string(sum[:])] = body
		d.Components = append(d.Components, &agentv1.ComponentRef{Name: name, Hash: sum[:]})
	}
	add("machine", p.machine)
	add("pool", p.pool)
	for i, c := range p.chunks {
		add("members/"+c.Pool+"/"+string(rune('0'+i)), c)
	}
	add("ready/"+p.ready.Pool+"/0", p.ready)
	if p.vpn != nil {
		add("vpn", p.vpn)
	}
	return d, func(h []byte) ([]byte, bool) { b, ok := bodies[string(h)]; return b, ok }
}

func TestDecode(t *testing.T) {
	d, body := example().encode(t)
	d.Components = append(d.Components, &agentv1.ComponentRef{Name: "of-the-future", Hash: make([]byte, sha256.Size)})
	s, err := desired.Decode(d, body)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range s.Members["zk"] {
		order = append(order, m.Name)
	}
	if !slices.Equal(order, []string{"zk-1", "zk-2", "zk-3"}) || s.Self().Name != "zk-2" || len(s.Peers()) != 1 || s.PoolGeneration != 4 {
		t.Errorf("members %v, self %v, peers %v", order, s.Self(), s.Peers())
	}
	if m := s.Members["zk"]; !m[0].Ready || m[1].Ready || m[2].Ready {
		t.Errorf("ready: %v", m)
	}
	changed := example()
	changed.ready.Members = changed.ready.Members[1:]
	again, err := desired.Decode(changed.encode(t))
	if err != nil {
		t.Fatal(err)
	}
	if again.Members["zk"][0].Ready || bytes.Equal(again.Revision, s.Revision) {
		t.Error("readiness does not change the state")
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, tt := range refused() {
		t.Run(tt.name, func(t *testing.T) {
			p := full()
			tt.change(p)
			_, err := desired.Decode(p.encode(t))
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	d, _ := example().encode(t)
	if _, err := desired.Decode(d, func([]byte) ([]byte, bool) { return nil, false }); !errs.Is(err, errs.Invalid) {
		t.Errorf("missing body: %v", err)
	}
	d.Components = d.Components[1:]
	if err := desired.Check(d); !errs.Is(err, errs.Invalid) {
		t.Errorf("missing machine: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	seed := map[string][]byte{}
	d, body := full().encode(f)
	for _, ref := range d.Components {
		b, _ := body(ref.Hash)
		f.Add(b, b, b, b)
		seed[ref.Name] = b
	}
	f.Add(seed["machine"], seed["pool"], seed["members/zk/0"], seed["vpn"])
	f.Fuzz(func(t *testing.T, machine, pool, chunk, vpn []byte) {
		bodies := [][]byte{machine, pool, chunk, vpn}
		d := &agentv1.Desired{Hash: make([]byte, sha256.Size)}
		for i, name := range []string{"machine", "pool", "members/zk/0", "vpn"} {
			h := make([]byte, sha256.Size)
			h[0] = byte(i)
			d.Components = append(d.Components, &agentv1.ComponentRef{Name: name, Hash: h})
		}
		s, err := desired.Decode(d, func(h []byte) ([]byte, bool) { return bodies[h[0]], true })
		if err != nil {
			if !errs.Is(err, errs.Invalid) {
				t.Errorf("kind %s", errs.KindOf(err))
			}
			return
		}
		if s.Machine == nil || s.Pool == nil || strings.ContainsAny(s.Machine.Fqdn, " /\n") {
			t.Errorf("accepted %v", s.Machine)
		}
		s.Self()
		s.Peers()
	})
}
