package ospolicy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/ospolicy"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func write(t *testing.T, h *host.Host, name, content string) {
	t.Helper()
	path := filepath.Join(h.Root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func read(h *host.Host, name string) string {
	content, _ := os.ReadFile(filepath.Join(h.Root, name)) // a missing file reads as empty
	return string(content)
}

// settle converges and returns what the first check found.
func settle(t *testing.T, h *host.Host, m *agentv1.MachineComponent, p *agentv1.OsPolicy) string {
	t.Helper()
	var found []string
	for _, r := range ospolicy.New(&desired.State{Machine: m, Pool: &agentv1.PoolComponent{OsPolicy: p}}, h) {
		d, err := r.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.Empty() {
			continue
		}
		found = append(found, d.Text)
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
			t.Errorf("after: %q, %v", d.Text, err)
		}
	}
	return strings.Join(found, "\n")
}

func TestUpgrades(t *testing.T) {
	h, _, units := hosttest.New(t)
	debian := &agentv1.MachineComponent{}
	settle(t, &h, debian, &agentv1.OsPolicy{UnattendedUpgrades: "security"})
	conf := read(&h, "etc/apt/apt.conf.d/52provisionr-unattended-upgrades")
	if !strings.Contains(conf, "Debian-Security") || strings.Contains(conf, "origin=*") || !strings.Contains(conf, `Automatic-Reboot "false"`) {
		t.Error(conf)
	}
	settle(t, &h, debian, &agentv1.OsPolicy{UnattendedUpgrades: "all"})
	if conf := read(&h, "etc/apt/apt.conf.d/52provisionr-unattended-upgrades"); !strings.Contains(conf, "origin=*") {
		t.Error(conf)
	}
	settle(t, &h, debian, &agentv1.OsPolicy{UnattendedUpgrades: "off"})
	if conf := read(&h, "etc/apt/apt.conf.d/52provisionr-unattended-upgrades"); !strings.Contains(conf, `Unattended-Upgrade "0"`) || strings.Contains(conf, "Origins") {
		t.Error(conf)
	}
	// No longer asked for: the system's own settings count again.
	if found := settle(t, &h, debian, &agentv1.OsPolicy{}); found == "" || read(&h, "etc/apt/apt.conf.d/52provisionr-unattended-upgrades") != "" {
		t.Errorf("left: %q", found)
	}
	if found := settle(t, &h, debian, nil); found != "" {
		t.Errorf("left for good: %q", found)
	}

	fedora := &agentv1.MachineComponent{Os: &agentv1.OperatingSystem{Distribution: "fedora"}}
	if found := settle(t, &h, fedora, &agentv1.OsPolicy{UnattendedUpgrades: "off"}); found != "" {
		t.Errorf("off, and not there: %q", found)
	}
	units.Set("dnf-automatic.timer", host.Unit{Load: "loaded", Active: "inactive", File: "disabled"})
	settle(t, &h, fedora, &agentv1.OsPolicy{UnattendedUpgrades: "security"})
	if conf := read(&h, "etc/dnf/automatic.conf"); !strings.Contains(conf, "upgrade_type = security") {
		t.Error(conf)
	}
	settle(t, &h, fedora, nil)
	if unit, err := units.Unit(t.Context(), "dnf-automatic.timer"); err != nil || unit.Active != "inactive" || unit.File != "disabled" || read(&h, "etc/dnf/automatic.conf") != "" {
		t.Errorf("left: %v, %v", unit, err)
	}
	settle(t, &h, fedora, &agentv1.OsPolicy{UnattendedUpgrades: "off"})
}

func TestSELinux(t *testing.T) {
	h, c, _ := hosttest.New(t)
	c.On("setenforce", func(call hosttest.Call) (host.Result, error) {
		write(t, &h, "sys/fs/selinux/enforce", strings.TrimPrefix(call.Line, "setenforce "))
		return host.Result{}, nil
	})
	m := &agentv1.MachineComponent{}
	check := func(mode string) error {
		_, err := ospolicy.New(&desired.State{Machine: m, Pool: &agentv1.PoolComponent{OsPolicy: &agentv1.OsPolicy{Selinux: mode}}}, &h)[0].Check(t.Context())
		return err
	}
	if err := check("enforcing"); !errs.Is(err, errs.Unsupported) {
		t.Errorf("a system without it: %v", err)
	}
	if err := check("disabled"); err != nil {
		t.Error(err)
	}
	write(t, &h, "etc/selinux/config", "# comment\nSELINUX=permissive\nSELINUXTYPE=targeted\n")
	write(t, &h, "sys/fs/selinux/enforce", "0")
	settle(t, &h, m, &agentv1.OsPolicy{Selinux: "enforcing"})
	if read(&h, "sys/fs/selinux/enforce") != "1" || read(&h, "etc/selinux/config") != "# comment\nSELINUXTYPE=targeted\nSELINUX=enforcing\n" {
		t.Error(read(&h, "etc/selinux/config"))
	}
	settle(t, &h, m, &agentv1.OsPolicy{Selinux: "disabled"})
	if got := ospolicy.RebootRequired(&h); got != "SELinux is to be disabled" {
		t.Error(got)
	}
	// It was switched off for a while: files are labelled before it is enforced again.
	write(t, &h, "sys/fs/selinux/enforce", "")
	settle(t, &h, m, &agentv1.OsPolicy{Selinux: "enforcing"})
	if _, err := os.Stat(filepath.Join(h.Root, ".autorelabel")); err != nil {
		t.Error(err)
	}
	m.SharedKernel = true
	if err := check("enforcing"); !errs.Is(err, errs.Unsupported) || !strings.Contains(errs.HintOf(err), "use provider qemu") {
		t.Error(err)
	}
}

func TestAppArmor(t *testing.T) {
	h, c, _ := hosttest.New(t)
	c.Answer("update-grub", "")
	write(t, &h, "sys/module/apparmor/parameters/enabled", "Y\n")
	write(t, &h, "etc/default/grub", "")
	m := &agentv1.MachineComponent{}
	if found := settle(t, &h, m, &agentv1.OsPolicy{Apparmor: "enabled"}); found != "" {
		t.Error(found)
	}
	settle(t, &h, m, &agentv1.OsPolicy{Apparmor: "disabled"})
	if got := ospolicy.RebootRequired(&h); got != "AppArmor is to be disabled" {
		t.Error(got)
	}
	// Another mind before the boot: what the boot loader was told is taken back.
	settle(t, &h, m, &agentv1.OsPolicy{Apparmor: "enabled"})
	if got := ospolicy.RebootRequired(&h); got != "" {
		t.Error(got)
	}
	settle(t, &h, m, &agentv1.OsPolicy{})
	if got := read(&h, "etc/default/grub.d/90-provisionr-apparmor.cfg"); got != "" || len(c.Lines()) != 3 {
		t.Errorf("left: %q, ran %q", got, c.Lines())
	}
}

func TestRebootRequired(t *testing.T) {
	h, _, _ := hosttest.New(t)
	if got := ospolicy.RebootRequired(&h); got != "" {
		t.Error(got)
	}
	write(t, &h, "proc/sys/kernel/osrelease", "6.1.0-18-cloud-amd64\n")
	for _, kernel := range []string{"6.1.0-18-cloud-amd64", "6.1.0-9-cloud-amd64", "6.1.0-37-amd64", "6.10.0-1-cloud-amd64"} {
		write(t, &h, "lib/modules/"+kernel+"/modules.builtin", "")
	}
	write(t, &h, "run/reboot-required", "*** System restart required ***\n")
	write(t, &h, "run/reboot-required.pkgs", "linux-base\ndbus\ndbus\n")
	if got := ospolicy.RebootRequired(&h); got != "dbus, linux-base ask for it; kernel 6.10.0-1-cloud-amd64 is installed, 6.1.0-18-cloud-amd64 is running" {
		t.Error(got)
	}
}
