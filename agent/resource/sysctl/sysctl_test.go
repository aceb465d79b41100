package sysctl

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func machine(t *testing.T, live map[string]string) (*host.Host, *hosttest.Commands) {
	h, c, _ := hosttest.New(t)
	for name, value := range live {
		on := filepath.Join(h.Root, "proc/sys", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte(value), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return &h, c
}

func state(shared bool, want map[string]string) *desired.State {
	return &desired.State{Machine: &agentv1.MachineComponent{SharedKernel: shared}, Pool: &agentv1.PoolComponent{Sysctl: want}}
}

func read(t *testing.T, h *host.Host, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.Root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestConverge(t *testing.T) {
	h, c := machine(t, map[string]string{
		"vm/swappiness": "60\n", "net/ipv4/tcp_rmem": "4096\t131072\t6291456\n", "kernel/x": "16\n",
		"net/ipv4/conf/eth0.5/rp_filter": "2\n", "net/ipv4/conf/all/rp_filter": "1\n",
	})
	want := map[string]string{
		"vm.swappiness": "1", "net.ipv4.tcp_rmem": "4096 131072 6291456", "kernel.x": "0x10", "net.ipv4.conf.*.rp_filter": "1",
		"net.ipv4.conf.eth0/5.rp_filter": "0",
	}
	list := New(state(false, want), h)
	if len(list) != 1 {
		t.Fatalf("%d resources", len(list))
	}
	d, err := list[0].Check(t.Context())
	if err != nil || !strings.Contains(d.Text, "vm/swappiness:\n-60\n+1") || !strings.Contains(d.Text, "eth0.5/rp_filter:\n-2\n+0") || strings.Contains(d.Text, "tcp_rmem:") || strings.Contains(d.Text, "kernel/x:") {
		t.Errorf("before: %q, %v", d.Text, err)
	}
	if err := list[0].Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := list[0].Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after: %q, %v", d.Text, err)
	}
	if got := read(t, h, confPath); !strings.Contains(got, "vm.swappiness = 1\n") {
		t.Errorf("file: %q", got)
	}
	if err := os.WriteFile(filepath.Join(h.Root, "proc/sys/vm/swappiness"), []byte("99\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if d, err := list[0].Check(t.Context()); err != nil || d.Text != "vm/swappiness:\n-99\n+1" {
		t.Errorf("drift: %q, %v", d.Text, err)
	}
	// No longer listed: the file goes, and the values are as before, where nobody else changed them.
	r := New(state(false, nil), h)[0]
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("without any: %q, %v", d.Text, err)
	}
	if now, eth := read(t, h, "proc/sys/vm/swappiness"), read(t, h, "proc/sys/net/ipv4/conf/eth0.5/rp_filter"); now != "99\n" || eth != "2" {
		t.Errorf("left: swappiness %q, rp_filter %q", now, eth)
	}
	if len(c.Lines()) > 0 {
		t.Errorf("ran %q", c.Lines())
	}
}

func TestParameterThatTheKernelHasNot(t *testing.T) {
	h, _ := machine(t, map[string]string{"vm/swappiness": "60\n"})
	r := New(state(false, map[string]string{"vm.nothing": "1", "vm.swappiness": "1"}), h)[0]
	if d, err := r.Check(t.Context()); err != nil || !strings.Contains(d.Text, "vm.nothing: the kernel has no such parameter") {
		t.Errorf("check: %q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); !errs.Is(err, errs.NotFound) {
		t.Errorf("apply: %v", err)
	}
	if got := read(t, h, "proc/sys/vm/swappiness"); got != "1" {
		t.Errorf("the other parameter was not set: %q", got)
	}
}

func TestSharedKernel(t *testing.T) {
	h, _ := machine(t, map[string]string{"vm/swappiness": "60\n", "net/core/somaxconn": "128\n"})
	list := New(state(true, map[string]string{"vm.swappiness": "1", "net.core.somaxconn": "4096", "net/core/somaxconn": "4096"}), h)
	if len(list) != 2 || list[0].Name() != "sysctl/vm.swappiness" {
		t.Fatalf("resources %v", list)
	}
	if _, err := list[0].Check(t.Context()); !errs.Is(err, errs.Unsupported) || !strings.Contains(errs.HintOf(err), "qemu") {
		t.Errorf("vm.swappiness: %v", err)
	}
	if err := list[0].Apply(t.Context()); !errs.Is(err, errs.Unsupported) {
		t.Errorf("vm.swappiness: %v", err)
	}
	if err := list[1].Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, h, confPath); strings.Contains(got, "vm.") {
		t.Errorf("file: %q", got)
	}
	if got := read(t, h, "proc/sys/vm/swappiness"); got != "60\n" {
		t.Errorf("the host's value became %q", got)
	}
	if triggered, ok := list[1].(converge.Triggered); !ok || triggered.Triggers()[0].Name != confPath {
		t.Error("trigger")
	}
}

func TestPath(t *testing.T) {
	for name, want := range map[string]string{
		"vm.swappiness": "vm/swappiness", "net/ipv4/conf/eth0.5/x": "net/ipv4/conf/eth0.5/x", "net.ipv4.conf.eth0/5.x": "net/ipv4/conf/eth0.5/x", "plain": "plain",
		"net/../vm/x": "vm/x",
	} {
		if got := (parameter{name: name}).path(); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}
