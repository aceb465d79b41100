package firewall

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func state(members []string, rules ...*agentv1.FirewallRule) *desired.State {
	s := &desired.State{
		Machine: &agentv1.MachineComponent{Pool: "zk", Cidr: "10.0.0.0/24", ServerRanges: []string{"192.0.2.0/28"}},
		Pool:    &agentv1.PoolComponent{Firewall: &agentv1.Firewall{Enabled: true, Rules: rules}},
		Members: map[string][]*agentv1.Member{},
	}
	for _, a := range members {
		s.Members["zk"] = append(s.Members["zk"], &agentv1.Member{Name: fmt.Sprintf("zk-%d", len(s.Members["zk"])+1), Address: a})
	}
	return s
}

func rule(name, protocol string, ports [][2]uint32, cidrs, pools []string) *agentv1.FirewallRule {
	r := &agentv1.FirewallRule{Name: name, Protocol: protocol, Cidrs: cidrs, Pools: pools}
	for _, p := range ports {
		r.Ports = append(r.Ports, &agentv1.PortRange{First: p[0], Last: p[1]})
	}
	return r
}

var example = []*agentv1.FirewallRule{
	rule("ssh", "tcp", [][2]uint32{{22, 22}}, []string{"0.0.0.0/0", "::/0"}, nil),
	rule("clients", "tcp", [][2]uint32{{2181, 2181}}, []string{"10.1.0.0/16", "10.1.2.0/24", "192.0.2.7", "fd00::/8"}, []string{"zk", "app"}),
	rule("peers", "tcp", [][2]uint32{{3888, 3888}, {2888, 2890}, {2889, 2900}}, nil, []string{"zk"}),
	rule("v4only", "udp", [][2]uint32{{53, 53}}, []string{"0.0.0.0/0", "10.0.0.0/8"}, nil),
}

// golden is the state of the file in testdata: every kind of rule.
func golden() *desired.State {
	rules := slices.Concat(example, []*agentv1.FirewallRule{
		{Name: "no-thanks", Protocol: "tcp", Ports: []*agentv1.PortRange{{First: 7446, Last: 7446}}, Cidrs: []string{"10.0.0.66/32"}, Drop: true},
		{Name: "named", Protocol: "tcp", Ports: []*agentv1.PortRange{{First: 80, Last: 80}}, Machines: []string{"zk-2", "app-1"}},
		{Name: "admins", Protocol: "tcp", Ports: []*agentv1.PortRange{{First: 9090, Last: 9090}}, Vpn: true},
	})
	s := state([]string{"10.0.0.2", "10.0.0.1", "", "fd00::1", "10.0.0.1"}, rules...)
	s.Members["app"] = []*agentv1.Member{{Name: "app-1", Address: "10.0.0.71"}, {Name: "app-2", Address: "10.0.0.72"}}
	s.Machine.Vpn = &agentv1.VpnMember{Cidr: "10.99.0.0/24", Port: 51821, Gateway: true, Relay: true, Routes: []string{"10.0.0.0/24", "10.4.0.0/16", "fd01::/64"}}
	s.Machine.DnsServers = []string{"192.0.2.1:53", "192.0.2.2:5353"}
	s.Machine.NtpServers = []string{"192.0.2.1", "time.example"}
	s.Machine.HttpProxy = "http://192.0.2.1:3142"
	s.Pool.Firewall.Egress = []*agentv1.FirewallRule{
		rule("web", "tcp", [][2]uint32{{80, 80}, {443, 443}}, []string{"198.51.100.0/24"}, nil),
		{Name: "mesh", Protocol: "udp", Ports: []*agentv1.PortRange{{First: 9, Last: 9}}, Vpn: true, Pools: []string{"app"}},
	}
	return s
}

func TestRender(t *testing.T) {
	rules, err := render(golden(), exits{upstreams: []string{"10.0.0.53", "fd00::53"}, servers: []string{"server.example:7744", "192.0.2.9:7444", "rubbish"}})
	if err != nil {
		t.Fatal(err)
	}
	got := rules.text(true)
	want, err := os.ReadFile("testdata/rules.nft")
	if os.Getenv("UPDATE") != "" {
		err = os.WriteFile("testdata/rules.nft", []byte(got), 0o644)
		want = []byte(got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if strings.Contains(rules.text(false), "10.0.0.71") {
		t.Error("the policy without members has the address of one")
	}
}

func TestDropRulesComeFirst(t *testing.T) {
	rules, err := render(golden(), exits{})
	if err != nil {
		t.Fatal(err)
	}
	text := rules.text(true)
	for _, later := range []string{"icmp type", `"in-confirm" accept`, `"in-ssh" accept`, `"in-vpn" accept`, `"in-named" accept`} {
		drop, pass := strings.Index(text, `"drop-no-thanks" drop`), strings.Index(text, later)
		if established := strings.Index(text, "ct state established"); established > drop || drop < 0 || pass < drop {
			t.Errorf("established at %d, drop at %d, %s at %d", established, drop, later, pass)
		}
	}
}

func TestMembersAreNoNewPolicy(t *testing.T) {
	h, _, _ := hosttest.New(t)
	guard := func(s *desired.State) string {
		g := New(s, &h)[0].(converge.Guarded).Guard()
		if !slices.Equal(g.Inbound, []uint16{22}) {
			t.Errorf("inbound %v", g.Inbound)
		}
		return g.Fingerprint
	}
	one, two := guard(state([]string{"10.0.0.1"}, example...)), guard(state([]string{"10.0.0.1", "10.0.0.2"}, example...))
	other := guard(state([]string{"10.0.0.1"}, example[1:]...))
	off := state(nil)
	off.Pool.Firewall.Enabled = false
	if one != two || one == other || guard(off) == one {
		t.Errorf("fingerprints %s, %s with another member, %s with other rules", one, two, other)
	}
}

func TestUndo(t *testing.T) {
	h, c, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded", File: "disabled"})
	k := &fake{}
	c.On("nft", k.nft)
	f := newFirewall(t, &h, k, state([]string{"10.0.0.1"}, example...))
	undo, err := f.Undo(t.Context())
	if err != nil || len(undo.Files) != 4 || !undo.Files[0].Absent || strings.Join(undo.Commands[1], " ") != "nft delete table inet provisionr" {
		t.Errorf("undo of the first policy: %+v, %v", undo, err)
	}
	settle(t, f, "missing in the kernel")
	undo, err = f.Undo(t.Context())
	if err != nil || undo.Files[0].Absent || string(undo.Files[0].Content) != f.rules.text(true) || strings.Join(undo.Commands[0], " ") != "nft -f "+rulesPath {
		t.Errorf("undo of a later policy: %+v, %v", undo, err)
	}
}

func TestBadRules(t *testing.T) {
	for name, r := range map[string]*agentv1.FirewallRule{
		"protocol": rule("x", "sctp", [][2]uint32{{1, 1}}, []string{"::/0"}, nil),
		"no ports": rule("x", "tcp", nil, []string{"::/0"}, nil),
		"ports":    rule("x", "tcp", [][2]uint32{{9, 8}}, []string{"::/0"}, nil),
		"source":   rule("x", "tcp", [][2]uint32{{1, 1}}, []string{"10.0.0.0/33"}, nil),
		"pool":     rule("x", "tcp", [][2]uint32{{1, 1}}, nil, []string{"a}; flush ruleset"}),
	} {
		if _, err := render(state(nil, r), exits{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Names reach the language of nft only if they cannot mean anything in it.
func TestNamesAreQuotedOrReplaced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name")
		rules, err := render(state(nil, rule(name, "tcp", [][2]uint32{{1, 1}}, []string{"0.0.0.0/0", "::/0"}, nil)), exits{})
		if err != nil {
			t.Fatal(err)
		}
		_, line, _ := strings.Cut(rules.text(true), "\n\t\ttcp dport 1 ")
		if want := fmt.Sprintf("counter name \"in-%s\" accept comment %q\n", comment(name), comment(name)); line != want+inputTail+"}\n" {
			t.Fatalf("rule ends with %q, want %q", line, want)
		}
	})
}

// fake is a kernel whose table is what nft was told.
type fake struct{ now *loaded }

var (
	setText     = regexp.MustCompile(`set (\S+) \{\n\t\ttype \S+\n(?:\t\telements = \{ (.*) \}\n)?\t\}`)
	elementText = regexp.MustCompile(`^(add|delete) element inet provisionr (\S+) \{ (.*) \}$`)
)

func (k *fake) nft(call hosttest.Call) (host.Result, error) {
	text, whole := strings.CutPrefix(call.Stdin, remove)
	if whole && text == "" {
		k.now = nil
		return host.Result{}, nil
	}
	if !whole {
		for line := range strings.Lines(text) {
			m := elementText.FindStringSubmatch(strings.TrimSpace(line))
			if m == nil {
				return host.Result{Exit: 1, Stderr: []byte(line)}, nil
			}
			list := parse(m[3])
			if m[1] == "add" {
				list = slices.Concat(k.now.members[m[2]], list)
				slices.SortFunc(list, netip.Addr.Compare)
			} else {
				list = missing(k.now.members[m[2]], list)
			}
			k.now.members[m[2]] = list
		}
		return host.Result{}, nil
	}
	k.now = &loaded{members: make(map[string][]netip.Addr)}
	for _, m := range setText.FindAllStringSubmatch(text, -1) {
		if isMembers(m[1]) {
			k.now.members[m[1]] = parse(m[2])
		}
	}
	k.now.fingerprint = sum(setText.ReplaceAllString(text, ""))
	return host.Result{}, nil
}

func parse(list string) []netip.Addr {
	var all []netip.Addr
	for _, a := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func newFirewall(t *testing.T, h *host.Host, k *fake, s *desired.State) *firewall {
	t.Helper()
	f := New(s, h)[0].(*firewall)
	f.kernel = func() (*loaded, error) { return k.now, nil }
	return f
}

func settle(t *testing.T, f *firewall, want string) {
	t.Helper()
	if d, err := f.Check(t.Context()); err != nil || d.Empty() || !strings.Contains(d.Text, want) {
		t.Errorf("before: %q does not say %q, %v", d.Text, want, err)
	}
	if err := f.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := f.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after: %q, %v", d.Text, err)
	}
}

func TestConverge(t *testing.T) {
	h, c, u := hosttest.New(t)
	k := &fake{}
	c.On("nft", k.nft)
	u.Set(unit, host.Unit{Load: "loaded", File: "disabled"})
	settle(t, newFirewall(t, &h, k, state([]string{"10.0.0.1"}, example...)), "missing in the kernel")
	settle(t, newFirewall(t, &h, k, state([]string{"10.0.0.1", "10.0.0.2"}, example...)), "+pool4_zk: 10.0.0.2")
	if calls := c.Calls(); calls[len(calls)-1].Stdin != "add element inet provisionr pool4_zk { 10.0.0.2 }\n" {
		t.Errorf("a machine that joined made nft run with %q", calls[len(calls)-1].Stdin)
	}
	if want := []string{"enable " + unit}; !slices.Equal(u.Log(), want) {
		t.Errorf("two changes did %v with units, want %v", u.Log(), want)
	}
	again := newFirewall(t, &h, k, state([]string{"10.0.0.1", "10.0.0.2"}, example...))
	k.now.fingerprint += "hole"
	settle(t, again, "changed from outside")
	k.now = nil
	settle(t, again, "missing in the kernel")
	if err := os.Remove(filepath.Join(h.Root, recordPath)); err != nil {
		t.Fatal(err)
	}
	settle(t, again, "loaded from other rules")

	calls := len(c.Calls())
	if d, err := again.Check(t.Context()); err != nil || !d.Empty() || len(c.Calls()) != calls {
		t.Errorf("a check ran a command: %v", c.Lines())
	}
	off := state(nil)
	off.Pool.Firewall.Enabled = false
	settle(t, newFirewall(t, &h, k, off), "exists, wanted absent")
	if k.now != nil || !slices.Contains(u.Log(), "disable "+unit) {
		t.Errorf("table %v, units %v", k.now, u.Log())
	}
}

func TestRulesThatNftRefusesAreNotKept(t *testing.T) {
	h, c, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded", File: "disabled"})
	c.Fail("nft", 1, "syntax error")
	f := newFirewall(t, &h, &fake{}, state(nil))
	if err := f.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(h.Root, rulesPath)); !os.IsNotExist(err) {
		t.Errorf("the rules are loaded at boot: %v", err)
	}
}
