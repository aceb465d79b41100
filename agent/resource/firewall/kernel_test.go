package firewall

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
)

// TestKernel loads rules into a real kernel, in a network namespace of its own.
func TestKernel(t *testing.T) {
	if !hosttest.InNamespace(t) {
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
	if err != nil || first == nil {
		t.Fatalf("table %v, %v", first, err)
	}
	for name, spoil := range map[string]string{
		"rule":    "add rule inet provisionr input tcp dport 9 accept",
		"policy":  "add chain inet provisionr input { policy accept; }",
		"port":    "add element inet provisionr rule2_ports { 4000 }",
		"dormant": "add table inet provisionr { flags dormant; }",
		"flushed": "flush chain inet provisionr input",
		"chain":   "add chain inet provisionr other",
	} {
		run(spoil)
		settle(t, f, "changed from outside")
		if now, err := f.kernel(); err != nil || now.fingerprint != first.fingerprint {
			t.Errorf("%s: the same rules have another fingerprint, %v", name, err)
		}
	}
	for spoil, want := range map[string]string{
		"add element inet provisionr pool4_zk { 10.6.6.6 }":    "-pool4_zk: 10.6.6.6",
		"delete element inet provisionr pool4_zk { 10.0.0.1 }": "+pool4_zk: 10.0.0.1",
	} {
		run(spoil)
		settle(t, f, want)
	}
	membersKeepCounters(t, &h)
	whole := New(golden(), &h)[0].(*firewall)
	settle(t, whole, "loaded from other rules")
	if d, err := New(golden(), &h)[0].Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after a start of the agent: %q, %v", d.Text, err)
	}
	run("add rule inet foreign c accept") // not ours
	if d, err := whole.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after a change of another table: %q, %v", d.Text, err)
	}
	off := state(nil)
	off.Pool.Firewall.Enabled = false
	settle(t, New(off, &h)[0].(*firewall), "exists, wanted absent")
	if now, err := look(); now != nil || err != nil {
		t.Errorf("the table stayed: %v, %v", now, err)
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

// membersKeepCounters shows that counters count, and go on when a machine joins.
func membersKeepCounters(t *testing.T, h *host.Host) {
	t.Helper()
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := state([]string{"10.0.0.1"}, example...)
	s.Pool.Firewall.Egress = append(s.Pool.Firewall.Egress, rule("web", "tcp", [][2]uint32{{443, 443}}, []string{"198.51.100.0/24"}, nil))
	settle(t, New(s, h)[0].(*firewall), "loaded from other rules")
	// Without a route nothing leaves the machine, so that the counter is made to count by the way that is always there.
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	run("ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
	run("ip", "address", "add", "203.0.113.1/24", "dev", "d0")
	run("ip", "link", "set", "d0", "up")
	if _, err := net.Dial("tcp", "203.0.113.9:80"); err == nil || errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("a refused connection out: %v", err)
	}
	refused := func() uint64 {
		t.Helper()
		all, err := Counters(h)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if c.Name == "out-refused" {
				return c.Packets
			}
		}
		t.Fatalf("no counter of what is refused: %v", all)
		return 0
	}
	before := refused()
	s = state([]string{"10.0.0.1", "10.0.0.9"}, example...)
	s.Pool.Firewall.Egress = append(s.Pool.Firewall.Egress, rule("web", "tcp", [][2]uint32{{443, 443}}, []string{"198.51.100.0/24"}, nil))
	settle(t, New(s, h)[0].(*firewall), "+pool4_zk: 10.0.0.9")
	if after := refused(); before == 0 || after < before {
		t.Errorf("counted %d, and %d after a machine joined", before, after)
	}
}
