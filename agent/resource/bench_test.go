package resource_test

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
	"github.com/provisionr/provisionr/agent/resource/file"
	"github.com/provisionr/provisionr/agent/resource/hosts"
	"github.com/provisionr/provisionr/agent/resource/ntp"
	"github.com/provisionr/provisionr/agent/resource/pkg"
	"github.com/provisionr/provisionr/agent/resource/repo"
	"github.com/provisionr/provisionr/agent/resource/resolver"
	"github.com/provisionr/provisionr/agent/resource/service"
	"github.com/provisionr/provisionr/agent/resource/user"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// machine is one that has 40 packages of 300 installed, 20 files, 5 users with keys and 3 services, all as desired but for
// what needs a program to run.
func machine(tb testing.TB) (*desired.State, *host.Host, *hosttest.Commands) {
	tb.Helper()
	h, c, u := hosttest.New(tb)
	s := &desired.State{
		Machine: &agentv1.MachineComponent{Name: "zk-1", Fqdn: "zk-1.example.internal", Address: "10.0.0.1", Pool: "zk", NtpServers: []string{"10.0.0.254"}, Zones: []string{"example.internal"}},
		Pool:    &agentv1.PoolComponent{Name: "zk"},
	}
	var status, passwd strings.Builder
	for i := range 300 {
		fmt.Fprintf(&status, "Package: p%d\nStatus: install ok installed\nMaintainer: Somebody <a@example.org>\nArchitecture: amd64\nVersion: 1.%d-1\nDepends: libc6 (>= 2.36)\nDescription: package\n %s\n\n", i, i, strings.Repeat("words ", 60))
	}
	status.WriteString("Package: chrony\nStatus: install ok installed\nVersion: 4\n")
	for i := range 40 {
		s.Pool.Packages = append(s.Pool.Packages, &agentv1.Package{Name: fmt.Sprintf("p%d", i)})
	}
	for i := range 20 {
		s.Pool.Files = append(s.Pool.Files, &agentv1.File{Path: fmt.Sprintf("/etc/app/%d.conf", i), Source: &agentv1.File_Template{Template: strings.Repeat("{{.Machine.Name}}\n", 50)}})
	}
	fmt.Fprintf(&passwd, "root:x:%d:%d::/root:/bin/bash\n", os.Getuid(), os.Getgid())
	for i := range 5 {
		name := fmt.Sprintf("user%d", i)
		s.Pool.Users = append(s.Pool.Users, &agentv1.User{Name: name, SshKeys: []string{"ssh-ed25519 AAAA"}})
		fmt.Fprintf(&passwd, "%s:x:%d:%d::/home/%s:/bin/bash\n", name, os.Getuid(), os.Getgid(), name)
	}
	for i := range 3 {
		name := fmt.Sprintf("s%d.service", i)
		s.Pool.Services = append(s.Pool.Services, &agentv1.Service{Name: name, Running: true, Enabled: true, RestartOn: []string{"/etc/app/1.conf", "/etc/app/2.conf"}})
		u.Set(name, host.Unit{Load: "loaded", Active: "active", File: "enabled"})
	}
	u.Set("chrony.service", host.Unit{Load: "loaded", Active: "active", File: "enabled"})
	for name, content := range map[string]string{
		"var/lib/dpkg/status": status.String(), "etc/passwd": passwd.String(), "etc/group": fmt.Sprintf("root:x:%d:\n", os.Getgid()),
		"etc/resolv.conf": "nameserver 10.0.0.254\n", "proc/1/status": "CapBnd:\t0\n", "proc/sys/kernel/hostname": "x\n",
	} {
		on := filepath.Join(h.Root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte(content), 0o644)); err != nil {
			tb.Fatal(err)
		}
	}
	return s, &h, c
}

func all(s *desired.State, h *host.Host) []converge.Resource {
	var list []converge.Resource
	for _, kind := range []func(*desired.State, *host.Host) []converge.Resource{
		hosts.New, resolver.New, repo.New, pkg.New, user.New, file.New, ntp.New, service.New,
	} {
		list = append(list, kind(s, h)...)
	}
	return list
}

func settle(tb testing.TB, s *desired.State, h *host.Host) {
	tb.Helper()
	ordered, err := converge.Order(all(s, h))
	if err != nil {
		tb.Fatal(err)
	}
	for _, r := range ordered {
		d, err := r.Check(tb.Context())
		if err == nil && !d.Empty() {
			err = r.Apply(tb.Context())
		}
		if err != nil {
			tb.Fatalf("%s: %v", r.Name(), err)
		}
	}
}

// A whole second run, with new resources as after a restart of the agent, changes nothing and runs no program.
func TestSecondRunChangesNothing(t *testing.T) {
	s, h, c := machine(t)
	settle(t, s, h)
	ran := len(c.Calls())
	for _, r := range all(s, h) {
		if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
			t.Errorf("%s: %q, %v", r.Name(), d.Text, err)
		}
	}
	if len(c.Calls()) != ran {
		t.Errorf("the second run ran %v", c.Lines()[ran:])
	}
}

func BenchmarkCheck(b *testing.B) {
	s, h, _ := machine(b)
	settle(b, s, h)
	check := func(b *testing.B, list []converge.Resource) {
		for _, r := range list {
			if d, err := r.Check(b.Context()); err != nil || !d.Empty() {
				b.Fatal(r.Name(), d, err)
			}
		}
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			check(b, all(s, h))
		}
	})
	b.Run("again", func(b *testing.B) {
		list := all(s, h)
		for b.Loop() {
			check(b, list)
		}
	})
}
