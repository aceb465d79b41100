package resolver

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name      string
		facts     facts
		want      mode
		upstreams string
	}{
		{"Debian 12 with resolved", facts{true, "../run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n", "nameserver 127.0.0.62\nnameserver 10.0.0.1\n"}, resolved, "10.0.0.1"},
		{"absolute link", facts{true, "/run/systemd/resolve/stub-resolv.conf", "", "nameserver 10.0.0.1\n"}, resolved, "10.0.0.1"},
		{"static resolved file", facts{true, "/usr/lib/systemd/resolv.conf", "nameserver 127.0.0.53\n", ""}, resolved, ""},
		{"copied stub file", facts{true, "", "nameserver 127.0.0.53\noptions edns0\n", "nameserver 10.0.0.1\n"}, resolved, "10.0.0.1"},
		{"uplinks linked", facts{true, "/run/systemd/resolve/resolv.conf", "nameserver 10.0.0.1\n", "nameserver 10.0.0.1\n"}, resolvedAround, "10.0.0.1"},
		{"resolved runs, nobody asks it", facts{true, "", "nameserver 10.0.0.1\n", "nameserver 10.0.0.1\n"}, plain, "10.0.0.1"},
		{"resolved runs beside ours", facts{true, "", "nameserver 127.0.0.62\n", "nameserver 10.0.0.1\n"}, plain, ""},
		{"plain file", facts{false, "", "search a b\nnameserver 10.0.0.1\nnameserver fd00::1\nnameserver 10.0.0.1\n", ""}, plain, "10.0.0.1 fd00::1"},
		{"local cache", facts{false, "", "nameserver 127.0.0.1\n", ""}, plain, "127.0.0.1"},
		{"NetworkManager", facts{false, "/run/NetworkManager/resolv.conf", "nameserver 10.0.0.1\n", ""}, plain, "10.0.0.1"},
		{"dead resolved", facts{false, "../run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n", ""}, plain, ""},
		{"nothing", facts{}, plain, ""},
		{"rubbish", facts{true, "", "nameserver\nnameserver x\n", ""}, plain, ""},
	} {
		got := detect(c.facts)
		var up []string
		for _, a := range upstreams(c.facts, got) {
			up = append(up, a.String())
		}
		if got != c.want || strings.Join(up, " ") != c.upstreams {
			t.Errorf("%s: mode %d, upstreams %v; want %d, %q", c.name, got, up, c.want, c.upstreams)
		}
	}
}

func FuzzNameservers(f *testing.F) {
	f.Add("nameserver 10.0.0.1\nsearch a\n")
	f.Fuzz(func(t *testing.T, text string) {
		once := string(plainConf(text))
		if got := nameservers(once); !slices.Equal(got, []netip.Addr{stub}) {
			t.Errorf("servers %v", got)
		}
		if twice := string(plainConf(once)); twice != once {
			t.Errorf("again: %q, first %q", twice, once)
		}
	})
}

func machine(t *testing.T, active string) (*host.Host, *hosttest.Units, func(name, content string)) {
	t.Helper()
	h, _, u := hosttest.New(t)
	u.Set(unit, host.Unit{Load: "loaded", Active: active})
	write := func(name, content string) {
		t.Helper()
		on := filepath.Join(h.Root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/debian_version", "12.1\n")
	return &h, u, write
}

func settle(t *testing.T, h *host.Host) {
	t.Helper()
	s := &desired.State{Machine: &agentv1.MachineComponent{Zones: []string{"example.internal", "0.0.10.in-addr.arpa"}}}
	r := New(s, h)[0]
	if d, err := r.Check(t.Context()); err != nil || d.Empty() {
		t.Errorf("before: %q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after: %q, %v", d.Text, err)
	}
}

func read(t *testing.T, h *host.Host, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.Root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestConvergeResolved(t *testing.T) {
	h, u, write := machine(t, "active")
	write("run/systemd/resolve/resolv.conf", "nameserver 10.0.0.1\nsearch .\n")
	if err := os.Symlink("../run/systemd/resolve/resolv.conf", filepath.Join(h.Root, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	settle(t, h)
	want := "# Managed by provisionr-agent.\n[Resolve]\nDNS=127.0.0.62\nDomains=~0.0.10.in-addr.arpa\nDomains=~example.internal\n"
	if diff := cmp.Diff(want, read(t, h, dropInPath)); diff != "" {
		t.Error(diff)
	}
	if got := read(t, h, UpstreamsPath); got != "10.0.0.1\n" {
		t.Errorf("upstreams %q", got)
	}
	if got, err := os.Readlink(filepath.Join(h.Root, confPath)); err != nil || got != stubLink {
		t.Errorf("link to %q, %v", got, err)
	}
	if got := u.Log(); !slices.Equal(got, []string{"reload-or-restart " + unit}) {
		t.Errorf("units: %v", got)
	}
}

func TestConvergePlain(t *testing.T) {
	h, _, write := machine(t, "inactive")
	write("etc/resolv.conf", "search corp\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n")
	settle(t, h)
	if got := read(t, h, confPath); !strings.HasSuffix(got, "\nnameserver 127.0.0.62\nsearch corp\n") {
		t.Errorf("resolv.conf %q", got)
	}
	if got := read(t, h, UpstreamsPath); got != "10.0.0.1\n10.0.0.2\n" {
		t.Errorf("upstreams %q", got)
	}
	// A DHCP client writes the file anew: its servers are the new upstreams.
	write("etc/resolv.conf", "nameserver 10.0.0.9\n")
	settle(t, h)
	if got := read(t, h, UpstreamsPath); got != "10.0.0.9\n" {
		t.Errorf("upstreams %q", got)
	}
}
