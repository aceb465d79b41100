package service_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/service"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	ownFile = "etc/systemd/system/" + unit
	dropIn  = ownFile + ".d/60-provisionr.conf"
)

// settle brings a unit to a state, and returns what was done to units for that.
func settle(t *testing.T, h *host.Host, u *hosttest.Units, want *agentv1.Service) string {
	t.Helper()
	before := len(u.Log())
	r := resource(h, want)
	d, err := r.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !d.Empty() {
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after: %q, %v", d.Text, err)
	}
	return strings.Join(u.Log()[before:], ", ")
}

func TestUnitFiles(t *testing.T) {
	h, _, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded", Active: "inactive", File: "enabled"})
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(h.Root, name))
		if err != nil {
			return "none"
		}
		return strings.TrimPrefix(string(b), "# Managed by provisionr-agent.\n")
	}
	for _, step := range []struct {
		name, log, content, override string
		want                         *agentv1.Service
	}{
		{"new", "daemon-reload, start " + unit, "[Unit]\n", "none", &agentv1.Service{Content: proto.String("[Unit]\n")}},
		{"again", "", "[Unit]\n", "none", &agentv1.Service{Content: proto.String("[Unit]\n")}},
		{"changed", "daemon-reload, restart " + unit, "[Unit]\n#2\n", "none", &agentv1.Service{Content: proto.String("[Unit]\n#2\n")}},
		{"drop-in", "daemon-reload, restart " + unit, "[Unit]\n#2\n", "[Service]\n", &agentv1.Service{Content: proto.String("[Unit]\n#2\n"), Override: proto.String("[Service]\n")}},
		{"the system's own", "daemon-reload, restart " + unit, "none", "none", &agentv1.Service{}},
	} {
		step.want.Name, step.want.Running, step.want.Enabled = unit, true, true
		if got := settle(t, &h, u, step.want); got != step.log {
			t.Errorf("%s: units %q, want %q", step.name, got, step.log)
		}
		if read(ownFile) != step.content || read(dropIn) != step.override {
			t.Errorf("%s: content %q, override %q", step.name, read(ownFile), read(dropIn))
		}
	}
}

func TestUnitFileOfAnotherIsLeftAlone(t *testing.T) {
	h, _, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded", Active: "active", File: "enabled"})
	on := filepath.Join(h.Root, ownFile)
	if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte("[Unit]\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := settle(t, &h, u, &agentv1.Service{Name: unit, Running: true, Enabled: true}); got != "" {
		t.Errorf("units %q", got)
	}
	if _, err := os.Stat(on); err != nil {
		t.Error(err)
	}
}

func TestMasked(t *testing.T) {
	h, _, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded", Active: "active", File: "enabled"})
	if got := settle(t, &h, u, &agentv1.Service{Name: unit, Masked: true}); got != "stop "+unit+", mask "+unit {
		t.Errorf("masked: %q", got)
	}
	if got := settle(t, &h, u, &agentv1.Service{Name: unit, Running: true, Enabled: true}); got != "unmask "+unit+", enable "+unit+", start "+unit {
		t.Errorf("unmasked: %q", got)
	}
}

func TestRestartsWhenItsProgramWasReplaced(t *testing.T) {
	for _, c := range []struct{ name, maps, want string }{
		{"program", "5581-5582 r-xp 00000000 fe:00 12 /usr/bin/java (deleted)\n", "/usr/bin/java"},
		{"library", "7f00-7f01 r-xp 00000000 fe:00 12 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)\n", "/usr/lib/x86_64-linux-gnu/libssl.so.3"},
		{"archive", "7f00-7f01 r--s 00000000 fe:00 12 /opt/kafka/my lib.jar (deleted)\n", "/opt/kafka/my lib.jar"},
		{"data", "7f00-7f01 r--p 00000000 fe:00 12 /usr/lib/locale/locale-archive (deleted)\n", ""},
		{"own code", "7f00-7f01 r-xp 00000000 00:01 12 /memfd:jit (deleted)\n7f00-7f01 r-xp 00000000 00:01 12 /tmp/native.so (deleted)\n", ""},
		{"in place", "5581-5582 r-xp 00000000 fe:00 12 /usr/bin/java\n", ""},
		{"noise", "/usr/bin/x (deleted)\n (deleted)\n\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, _, u := hosttest.New(t)
			u.Set(unit, host.Unit{Load: "loaded", Active: "active", File: "enabled", MainPID: 42})
			maps := filepath.Join(h.Root, "proc/42/maps")
			if err := errors.Join(os.MkdirAll(filepath.Dir(maps), 0o755), os.WriteFile(maps, []byte(c.maps), 0o644)); err != nil {
				t.Fatal(err)
			}
			r := resource(&h, &agentv1.Service{Name: unit, Running: true, Enabled: true})
			d, err := r.Check(t.Context())
			if err != nil || d.Empty() != (c.want == "") || !strings.HasSuffix(d.Text, c.want) {
				t.Errorf("got %q, %v", d.Text, err)
			}
			if err := r.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(u.Log(), "restart "+unit); got != (c.want != "") {
				t.Errorf("units %q", u.Log())
			}
		})
	}
	// The process may be gone by now.
	h, _, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded", Active: "active", File: "enabled", MainPID: 42})
	if d, err := resource(&h, &agentv1.Service{Name: unit, Running: true, Enabled: true}).Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("without a process: %q, %v", d.Text, err)
	}
}

func TestTriggers(t *testing.T) {
	h, _, _ := hosttest.New(t)
	r, ok := resource(&h, &agentv1.Service{Name: unit, Override: proto.String("")}).(converge.Triggered)
	want := []converge.Trigger{{Kind: converge.OnUnit, Name: unit}, {Kind: converge.OnFile, Name: "/" + dropIn}}
	if !ok || !slices.Equal(r.Triggers(), want) {
		t.Errorf("triggers %v", r.Triggers())
	}
}

func TestWhatLeftIsRemoved(t *testing.T) {
	h, _, u := hosttest.New(t)
	const header = "# Managed by provisionr-agent.\n"
	for name, content := range map[string]string{
		"etc/systemd/system/old.service":                      header + "[Unit]\n",
		"etc/systemd/system/nginx.service":                    header + "[Unit]\n",
		"usr/lib/systemd/system/nginx.service":                "[Unit]\n",
		"etc/systemd/system/old.timer":                        header + "[Timer]\n",
		"etc/systemd/system/ssh.service.d/60-provisionr.conf": header + "[Service]\n",
		"etc/systemd/system/ssh.service.d/mine.conf":          "[Service]\n",
		"etc/systemd/system/mine.service":                     "[Unit]\n",
		"etc/systemd/system/provisionr-firewall.service":      header + "[Unit]\n",
		"etc/systemd/system/data.mount":                       header + "[Unit]\nDescription=File system of provisionr\n",
		"etc/systemd/system/swapfile.swap":                    header + "[Unit]\nDescription=Swap file of provisionr\n",
		ownFile:                                               header + "[Unit]\n",
		dropIn:                                                header + "[Service]\n",
	} {
		on := filepath.Join(h.Root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	u.Set("old.service", host.Unit{Load: "loaded", Active: "active", File: "enabled"})
	u.Set("old.timer", host.Unit{Load: "loaded", Active: "inactive", File: "disabled"})
	u.Set("nginx.service", host.Unit{Load: "loaded", Active: "active", File: "enabled"})
	r := service.New(&desired.State{Pool: &agentv1.PoolComponent{Services: []*agentv1.Service{{Name: unit}}}}, &h)[0]
	d, err := r.Check(t.Context())
	if want := "units and drop-ins of services that are not listed: nginx.service, old.service, old.timer, /etc/systemd/system/ssh.service.d/60-provisionr.conf"; err != nil || d.Text != want {
		t.Errorf("before: %q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after: %q, %v", d.Text, err)
	}
	// A package's own unit counts again, and runs on.
	if got := strings.Join(u.Log(), ", "); got != "daemon-reload, stop old.service, disable old.service, daemon-reload, daemon-reload, daemon-reload" {
		t.Errorf("units %q", got)
	}
	for name, stays := range map[string]bool{"old.service": false, "nginx.service": false, "mine.service": true, "provisionr-firewall.service": true, "data.mount": true, "swapfile.swap": true, "ssh.service.d/mine.conf": true} {
		if _, err := os.Stat(filepath.Join(h.Root, "etc/systemd/system", name)); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
}
