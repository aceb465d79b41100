package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func state(members []string, rules ...*agentv1.FirewallRule) *desired.State {
	s := &desired.State{
		Pool:    &agentv1.PoolComponent{Firewall: &agentv1.Firewall{Enabled: true, Rules: rules}},
		Members: map[string][]*agentv1.Member{},
	}
	for _, a := range members {
		s.Members["zk"] = append(s.Members["zk"], &agentv1.Member{Address: a})
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

func TestRender(t *testing.T) {
	got, err := render(state([]string{"10.0.0.2", "10.0.0.1", "", "fd00::1", "10.0.0.1"}, example...))
	if err != nil {
		t.Fatal(err)
	}
	want := remove + `table inet provisionr {
` + base + `	set rule1_4 {
		type ipv4_addr
		flags interval
		elements = { 10.1.0.0/16, 192.0.2.7/32 }
	}
	set rule2_ports {
		type inet_service
		flags interval
		elements = { 2888-2900, 3888 }
	}
	set pool4_zk {
		type ipv4_addr
		elements = { 10.0.0.1, 10.0.0.2 }
	}
	set pool6_zk {
		type ipv6_addr
		elements = { fd00::1 }
	}
	set pool4_app {
		type ipv4_addr
	}
	set pool6_app {
		type ipv6_addr
	}
` + inputHead + `		tcp dport 22 accept comment "ssh"
		ip saddr @rule1_4 tcp dport 2181 accept comment "clients"
		ip6 saddr fd00::/8 tcp dport 2181 accept comment "clients"
		ip saddr @pool4_zk tcp dport 2181 accept comment "clients"
		ip6 saddr @pool6_zk tcp dport 2181 accept comment "clients"
		ip saddr @pool4_app tcp dport 2181 accept comment "clients"
		ip6 saddr @pool6_app tcp dport 2181 accept comment "clients"
		ip saddr @pool4_zk tcp dport @rule2_ports accept comment "peers"
		ip6 saddr @pool6_zk tcp dport @rule2_ports accept comment "peers"
		meta nfproto ipv4 udp dport 53 accept comment "v4only"
	}
}
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
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
		if _, err := render(state(nil, r)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Names reach the language of nft only if they cannot mean anything in it.
func TestNamesAreQuotedOrReplaced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name")
		text, err := render(state(nil, rule(name, "tcp", [][2]uint32{{1, 1}}, []string{"::/0"}, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if line := strings.Split(text, "tcp dport 1 accept")[1]; line != fmt.Sprintf(" comment %q\n\t}\n}\n", comment(name)) {
			t.Fatalf("rule ends with %q", line)
		}
	})
}

// fake is a kernel whose table is the last text that nft was given.
type fake struct{ table string }

func newFirewall(t *testing.T, h *host.Host, k *fake, s *desired.State) *firewall {
	t.Helper()
	f := New(s, h)[0].(*firewall)
	f.kernel = func() (string, error) {
		if k.table == "" {
			return "", nil
		}
		return sum(k.table), nil
	}
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
	c.On("nft", func(call hosttest.Call) (host.Result, error) {
		k.table = strings.TrimPrefix(call.Stdin, remove)
		return host.Result{}, nil
	})
	u.Set(unit, host.Unit{Load: "loaded", File: "disabled"})
	settle(t, newFirewall(t, &h, k, state([]string{"10.0.0.1"}, example...)), "missing in the kernel")
	settle(t, newFirewall(t, &h, k, state([]string{"10.0.0.1", "10.0.0.2"}, example...)), "+\t\telements = { 10.0.0.1, 10.0.0.2 }")
	if want := []string{"enable " + unit}; !slices.Equal(u.Log(), want) {
		t.Errorf("two changes did %v with units, want %v", u.Log(), want)
	}
	again := newFirewall(t, &h, k, state([]string{"10.0.0.1", "10.0.0.2"}, example...))
	k.table += "hole"
	settle(t, again, "changed from outside")
	k.table = ""
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
	if k.table != "" || !slices.Contains(u.Log(), "disable "+unit) {
		t.Errorf("table %q, units %v", k.table, u.Log())
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

// TestKernel loads rules into a real kernel, in a network namespace of its own.
func TestKernel(t *testing.T) {
	if os.Getenv("PROVISIONR_TEST_NAMESPACE") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKernel$", "-test.v")
		cmd.Env = append(os.Environ(), "PROVISIONR_TEST_NAMESPACE=1", "PATH=/usr/sbin:/sbin:"+os.Getenv("PATH"))
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in its namespace: %v\n%s", err, out)
		}
		return
	}
	h := host.Host{Root: t.TempDir(), Commands: nft{}, Units: &hosttest.Units{}}
	h.Units.(*hosttest.Units).Set(unit, host.Unit{Load: "loaded", File: "disabled"})
	run := func(rules string) {
		t.Helper()
		if r, err := (nft{}).Run(t.Context(), host.Command{Path: "nft", Args: []string{"-f", "-"}, Stdin: strings.NewReader(rules)}); err != nil || r.Exit != 0 {
			t.Fatalf("nft: %v: %s", err, r.Stderr)
		}
	}
	run("table inet foreign {\n chain c {\n }\n}\n")
	f := New(state([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, example...), &h)[0].(*firewall)
	settle(t, f, "missing in the kernel")
	first, err := f.kernel()
	if err != nil || first == "" {
		t.Fatalf("fingerprint %q, %v", first, err)
	}
	for name, spoil := range map[string]string{
		"rule":    "add rule inet provisionr input tcp dport 9 accept",
		"policy":  "add chain inet provisionr input { policy accept; }",
		"element": "add element inet provisionr pool4_zk { 10.6.6.6 }",
		"fewer":   "delete element inet provisionr pool4_zk { 10.0.0.1 }",
		"port":    "add element inet provisionr rule2_ports { 4000 }",
		"dormant": "add table inet provisionr { flags dormant; }",
		"flushed": "flush chain inet provisionr input",
		"chain":   "add chain inet provisionr other",
	} {
		run(spoil)
		settle(t, f, "changed from outside")
		if now, err := f.kernel(); err != nil || now != first {
			t.Errorf("%s: the same rules have another fingerprint, %v", name, err)
		}
	}
	run("add rule inet foreign c accept") // not ours
	if d, err := f.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after a change of another table: %q, %v", d.Text, err)
	}
	off := state(nil)
	off.Pool.Firewall.Enabled = false
	settle(t, New(off, &h)[0].(*firewall), "exists, wanted absent")
	if now, err := fingerprint(); now != "" || err != nil {
		t.Errorf("the table stayed: %q, %v", now, err)
	}
}

// nft runs the real nft.
type nft struct{}

func (nft) Run(ctx context.Context, c host.Command) (host.Result, error) {
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = c.Stdin, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return host.Result{Exit: exit.ExitCode(), Stderr: stderr.Bytes()}, nil
	}
	return host.Result{Stderr: stderr.Bytes()}, err
}

func FuzzAttributes(f *testing.F) {
	f.Add(attribute(attrTable, cstring(table)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := attributes(b); err == nil && len(b) > 0 && len(o) == 0 {
			t.Error("bytes without an attribute")
		}
	})
}
