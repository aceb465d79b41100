package module

import (
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

const procModules = `nf_conntrack 200704 3 nf_nat,nft_ct, Live 0xffffffffc0a00000
br_netfilter 36864 0 - Live 0xffffffffc0900000
floppy 94208 0 - Live 0x0
`

type machine struct {
	*testing.T
	host     host.Host
	commands *hosttest.Commands
}

func newMachine(t *testing.T) *machine {
	h, c, _ := hosttest.New(t)
	m := &machine{t, h, c}
	m.write("proc/modules", procModules)
	m.write("proc/sys/kernel/osrelease", "6.1.0-18-cloud-amd64\n")
	m.write("lib/modules/6.1.0-18-cloud-amd64/modules.builtin", "kernel/fs/ext4/ext4.ko\nkernel/drivers/net/virtio-net.ko\n")
	c.On("modprobe", func(call hosttest.Call) (host.Result, error) {
		f := strings.Fields(call.Line)
		if f[1] == "-r" {
			m.write("proc/modules", "")
		} else {
			m.write("proc/modules", procModules+strings.ReplaceAll(f[1], "-", "_")+" 1 0 - Live 0x0\n")
		}
		return host.Result{}, nil
	})
	return m
}

func (m *machine) write(name, content string) {
	m.Helper()
	hosttest.Write(m, m.host, name, content)
}

func (m *machine) resources(want ...*agentv1.KernelModule) []converge.Resource {
	return New(&desired.State{Pool: &agentv1.PoolComponent{Modules: want}}, &m.host)
}

func TestConverge(t *testing.T) {
	for _, c := range []struct {
		want      *agentv1.KernelModule
		ran       string
		load, has string
	}{
		{&agentv1.KernelModule{Name: "ip-vs"}, "modprobe ip-vs", "ip-vs\n", ""},
		{&agentv1.KernelModule{Name: "br-netfilter", Options: "x=1 y=2"}, "", "br-netfilter\n", "options br-netfilter x=1 y=2\n"},
		{&agentv1.KernelModule{Name: "virtio_net"}, "", "virtio_net\n", ""},
		{&agentv1.KernelModule{Name: "floppy", Absent: true}, "modprobe -r floppy", "", "blacklist floppy\ninstall floppy /bin/false\n"},
		{&agentv1.KernelModule{Name: "nf_conntrack", Absent: true}, "", "", "blacklist nf_conntrack\ninstall nf_conntrack /bin/false\n"},
	} {
		t.Run(c.want.Name, func(t *testing.T) {
			m := newMachine(t)
			r := m.resources(c.want)[0]
			if d, err := r.Check(t.Context()); err != nil || d.Empty() {
				t.Errorf("before: %q, %v", d.Text, err)
			}
			if err := r.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
				t.Errorf("after: %q, %v", d.Text, err)
			}
			if got := strings.Join(m.commands.Lines(), "; "); got != c.ran {
				t.Errorf("ran %q, want %q", got, c.ran)
			}
			for dir, want := range map[string]string{loadDir: c.load, probeDir: c.has} {
				b, err := os.ReadFile(filepath.Join(m.host.Root, dir, "provisionr-"+c.want.Name+".conf"))
				if string(b) != want || (err != nil) != (want == "") {
					t.Errorf("%s: %q, %v", dir, b, err)
				}
			}
		})
	}
}

func TestUnloadedByHandIsDrift(t *testing.T) {
	m := newMachine(t)
	r := m.resources(&agentv1.KernelModule{Name: "br_netfilter"})[0]
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.write("proc/modules", "")
	if d, err := r.Check(t.Context()); err != nil || d.Text != "is not loaded" {
		t.Errorf("got %q, %v", d.Text, err)
	}
}

func TestStrays(t *testing.T) {
	m := newMachine(t)
	m.write("etc/modules-load.d/provisionr-old.conf", "old\n")
	m.write("etc/modprobe.d/provisionr-old.conf", "options old\n")
	m.write("etc/modprobe.d/mine.conf", "options x\n")
	r := m.resources()[0]
	if d, err := r.Check(t.Context()); err != nil || !strings.Contains(d.Text, "/etc/modprobe.d/provisionr-old.conf") {
		t.Errorf("before: %q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after: %q, %v", d.Text, err)
	}
	if _, err := os.Stat(filepath.Join(m.host.Root, "etc/modprobe.d/mine.conf")); err != nil {
		t.Error(err)
	}
}

func TestSharedKernel(t *testing.T) {
	m := newMachine(t)
	s := &desired.State{Machine: &agentv1.MachineComponent{SharedKernel: true}, Pool: &agentv1.PoolComponent{Modules: []*agentv1.KernelModule{{Name: "x"}}}}
	if err := New(s, &m.host)[0].Apply(t.Context()); !errs.Is(err, errs.Unsupported) {
		t.Errorf("got %v", err)
	}
	if len(m.commands.Lines()) > 0 {
		t.Errorf("ran %q", m.commands.Lines())
	}
}

func TestModprobeThatFails(t *testing.T) {
	m := newMachine(t)
	m.commands.Fail("modprobe", 1, "FATAL: Module nothing not found")
	err := m.resources(&agentv1.KernelModule{Name: "nothing"})[0].Apply(t.Context())
	if err == nil || !strings.Contains(err.Error(), "not found") || !strings.Contains(errs.HintOf(err), "6.1.0-18") {
		t.Errorf("got %v", err)
	}
}
