package swap

import (
	"errors"
	"fmt"
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

const swapsHead = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"

type machine struct {
	*testing.T
	host     host.Host
	commands *hosttest.Commands
	units    *hosttest.Units
}

// newMachine swaps as the scripted commands and units say: starting the unit is what puts its file to use.
func newMachine(t *testing.T, unit string) *machine {
	h, c, u := hosttest.New(t)
	m := &machine{t, h, c, u}
	m.write("proc/swaps", swapsHead)
	u.Set(unit, host.Unit{Load: "loaded", Active: "inactive", File: "disabled"})
	c.On("mkswap", func(call hosttest.Call) (host.Result, error) {
		f, err := os.OpenFile(filepath.Join(h.Root, strings.Fields(call.Line)[1]), os.O_WRONLY, 0)
		if err != nil {
			return host.Result{}, err
		}
		_, err = f.WriteAt([]byte(signature), 4096-int64(len(signature)))
		return host.Result{}, errors.Join(err, f.Close())
	})
	c.On("swapoff", func(hosttest.Call) (host.Result, error) {
		m.write("proc/swaps", swapsHead)
		return host.Result{}, nil
	})
	return m
}

func (m *machine) write(name, content string) {
	m.Helper()
	hosttest.Write(m, m.host, name, content)
}

func (m *machine) resource(want *agentv1.Swap) converge.Resource {
	return New(&desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{Swap: want}}, &m.host)[0]
}

func (m *machine) check(r converge.Resource) string {
	m.Helper()
	d, err := r.Check(m.Context())
	if err != nil {
		m.Fatal(err)
	}
	return d.Text
}

func (m *machine) uses(path string, mib int) {
	m.write("proc/swaps", swapsHead+fmt.Sprintf("%s file\t%d\t0\t-2\n", path, mib<<10-4))
}

func TestFile(t *testing.T) {
	m := newMachine(t, "srv-swap.swap")
	for _, size := range []uint32{2, 1} {
		r := m.resource(&agentv1.Swap{SizeMib: size, Path: "/srv/swap"})
		if m.check(r) == "" {
			t.Error("nothing to do")
		}
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.uses("/srv/swap", int(size))
		if d := m.check(r); d != "" {
			t.Errorf("after: %q", d)
		}
		if st, err := os.Stat(filepath.Join(m.host.Root, "srv/swap")); err != nil || st.Size() != int64(size)<<20 || st.Mode() != 0o600 {
			t.Errorf("file %v, %v", st, err)
		}
	}
	want := "mkswap /srv/.swap.provisionr; swapoff /srv/swap; mkswap /srv/.swap.provisionr"
	if got := strings.Join(m.commands.Lines(), "; "); got != want {
		t.Errorf("ran %q", got)
	}
	if got := strings.Join(m.units.Log(), ", "); got != "daemon-reload, enable srv-swap.swap, start srv-swap.swap, daemon-reload, start srv-swap.swap" {
		t.Errorf("units %q", got)
	}
	// Drift: the mode, and a swapoff by hand.
	r := m.resource(&agentv1.Swap{SizeMib: 1, Path: "/srv/swap"})
	m.write("proc/swaps", swapsHead)
	if err := os.Chmod(filepath.Join(m.host.Root, "srv/swap"), 0o644); err != nil {
		t.Fatal(err)
	}
	if d := m.check(r); d != "/srv/swap: mode 0644, wanted 0600\nis not swapped to" {
		t.Errorf("drift: %q", d)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.uses("/srv/swap", 1)
	if d := m.check(r); d != "" {
		t.Errorf("after: %q", d)
	}
}

func TestWhatIsNoSwapFileIsLeftAlone(t *testing.T) {
	m := newMachine(t, "swapfile.swap")
	m.write("swapfile", "precious")
	r := m.resource(&agentv1.Swap{SizeMib: 1})
	if _, err := r.Check(t.Context()); !errs.Is(err, errs.Conflict) {
		t.Errorf("check: %v", err)
	}
	if err := r.Apply(t.Context()); !errs.Is(err, errs.Conflict) {
		t.Errorf("apply: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(m.host.Root, "swapfile")); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestMkswapThatFailsLeavesNothing(t *testing.T) {
	m := newMachine(t, "swapfile.swap")
	m.commands.Fail("mkswap", 1, "bad")
	if err := m.resource(&agentv1.Swap{SizeMib: 1}).Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "bad") {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"swapfile", ".swapfile.provisionr"} {
		if _, err := os.Stat(filepath.Join(m.host.Root, name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.resource(&agentv1.Swap{SizeMib: 1 << 20}).Apply(t.Context()); !errs.Is(err, errs.Exhausted) {
		t.Errorf("a file of 1 TiB: %v", err)
	}
}

func TestNone(t *testing.T) {
	m := newMachine(t, "swapfile.swap")
	m.write("etc/fstab", "UUID=1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n")
	m.write("etc/systemd/system/swapfile.swap", unitHead+"\n[Swap]\nWhat=/swapfile\n")
	m.write("swapfile", strings.Repeat("x", 4096-len(signature))+signature)
	if err := os.Chmod(filepath.Join(m.host.Root, "etc/fstab"), 0o604); err != nil {
		t.Fatal(err)
	}
	m.write("etc/systemd/system/other.swap", "[Swap]\n")
	m.uses("/swapfile", 1)
	r := m.resource(&agentv1.Swap{})
	if d := m.check(r); !strings.Contains(d, "swaps to /swapfile, wanted none") || !strings.Contains(d, "+#provisionr# /swapfile none swap sw 0 0") {
		t.Errorf("before: %q", d)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := m.check(r); d != "" {
		t.Errorf("after: %q", d)
	}
	if got := strings.Join(m.commands.Lines(), "; "); got != "swapoff /swapfile" {
		t.Errorf("ran %q", got)
	}
	if _, err := os.Stat(filepath.Join(m.host.Root, "etc/systemd/system/other.swap")); err != nil {
		t.Error(err)
	}
	for _, gone := range []string{"swapfile", "etc/systemd/system/swapfile.swap"} {
		if _, err := os.Stat(filepath.Join(m.host.Root, gone)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	// No longer asked for: the system's own swap comes back.
	m.commands.Answer("swapon", "")
	r = m.resource(nil)
	if d := m.check(r); !strings.Contains(d, "wanted as they were") {
		t.Errorf("left: %q", d)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(m.host.Root, "etc/fstab")
	if b, err := os.ReadFile(table); err != nil || string(b) != "UUID=1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n" || m.check(r) != "" {
		t.Errorf("fstab %q, %v", b, err)
	}
	if st, err := os.Stat(table); err != nil || st.Mode() != 0o604 {
		t.Errorf("fstab has mode %v, %v", st.Mode(), err)
	}
}

func TestAFileThatIsNoLongerWantedGoes(t *testing.T) {
	for name, want := range map[string]*agentv1.Swap{"another path": {SizeMib: 1, Path: "/srv/swap"}, "none of ours": nil} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, "swapfile.swap")
			m.units.Set("srv-swap.swap", host.Unit{Load: "loaded", Active: "inactive", File: "disabled"})
			if err := m.resource(&agentv1.Swap{SizeMib: 1}).Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.uses("/swapfile", 1)
			m.write("etc/systemd/system/data-swap.swap", unitHead+"\n[Swap]\nWhat=/data/precious\n")
			m.write("data/precious", "not a swap file")
			list := New(&desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{Swap: want}}, &m.host)
			r := list[len(list)-1]
			if d := m.check(r); d != "swap files that are not wanted: data-swap.swap, swapfile.swap" {
				t.Errorf("before: %q", d)
			}
			if err := r.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := m.check(r); d != "" {
				t.Errorf("after: %q", d)
			}
			if _, err := os.Stat(filepath.Join(m.host.Root, "swapfile")); !os.IsNotExist(err) {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(m.host.Root, "data/precious")); err != nil {
				t.Error(err)
			}
			if got := strings.Join(m.units.Log(), ", "); !strings.Contains(got, "stop swapfile.swap, disable swapfile.swap, daemon-reload") {
				t.Errorf("units %q", got)
			}
		})
	}
}

func TestFillMakesNoHoles(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fill(t.Context(), f, block+5); err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != block+5 {
		t.Errorf("%d octets, %v", st.Size(), err)
	}
}

func TestSharedKernelAndNothingSaid(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := &desired.State{Machine: &agentv1.MachineComponent{SharedKernel: true}, Pool: &agentv1.PoolComponent{Swap: &agentv1.Swap{}}}
	if _, err := New(s, &h)[0].Check(t.Context()); !errs.Is(err, errs.Unsupported) {
		t.Errorf("got %v", err)
	}
	s.Pool.Swap = nil
	if list := New(s, &h); len(list) > 0 {
		t.Errorf("%d resources", len(list))
	}
}
