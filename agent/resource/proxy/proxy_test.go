package proxy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/proxy"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const url = "http://10.0.0.1:3142"

func TestConverge(t *testing.T) {
	h, _, units := hosttest.New(t)
	read := func(name string) string {
		content, err := os.ReadFile(filepath.Join(h.Root, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(content)
	}
	if err := os.MkdirAll(filepath.Join(h.Root, "etc/dnf"), 0o755); err != nil {
		t.Fatal(err)
	}
	const dnf = "[main]\ngpgcheck=True\n"
	if err := os.WriteFile(filepath.Join(h.Root, "etc/dnf/dnf.conf"), []byte(dnf), 0o644); err != nil {
		t.Fatal(err)
	}
	debian, fedora := &agentv1.OperatingSystem{Distribution: "debian"}, &agentv1.OperatingSystem{Distribution: "fedora"}
	for _, c := range []struct {
		name    string
		machine *agentv1.MachineComponent
		has     map[string]string
		none    []string
		reloads int
	}{
		{"package manager only", &agentv1.MachineComponent{HttpProxy: url, Os: debian, NoProxy: []string{"mirror.example", "10.1.0.0/16"}},
			map[string]string{"etc/apt/apt.conf.d/90provisionr": "// Managed by provisionr-agent.\nAcquire::http::Proxy \"http://10.0.0.1:3142\";\nAcquire::http::Proxy::mirror.example \"DIRECT\";\n"},
			[]string{"etc/environment.d/90-provisionr-proxy.conf"}, 1},
		{"everyone", &agentv1.MachineComponent{HttpProxy: url, Os: debian, ProxyEnvironment: true, Domain: "example.internal", Cidr: "10.0.0.0/24", NoProxy: []string{"it's"}},
			map[string]string{
				"etc/environment.d/90-provisionr-proxy.conf":         "no_proxy=localhost,127.0.0.1,::1,10.0.0.0/24,.example.internal,it's\n",
				"etc/profile.d/provisionr-proxy.sh":                  `export NO_PROXY='localhost,127.0.0.1,::1,10.0.0.0/24,.example.internal,it'\''s'`,
				"etc/systemd/system.conf.d/90-provisionr-proxy.conf": `[Manager]` + "\n" + `DefaultEnvironment="http_proxy=http://10.0.0.1:3142" "HTTP_PROXY=`,
			}, nil, 2},
		{"dnf", &agentv1.MachineComponent{HttpProxy: url, Os: fedora},
			map[string]string{"etc/dnf/dnf.conf": "[main]\n# The next line is provisionr-agent's.\nproxy=" + url + "\ngpgcheck=True\n"},
			[]string{"etc/apt/apt.conf.d/90provisionr", "etc/profile.d/provisionr-proxy.sh"}, 3},
		{"none", &agentv1.MachineComponent{Os: fedora}, map[string]string{"etc/dnf/dnf.conf": dnf}, nil, 3},
	} {
		r := proxy.New(&desired.State{Machine: c.machine}, &h)[0]
		if d, err := r.Check(t.Context()); err != nil || d.Empty() {
			t.Errorf("%s: before: %q, %v", c.name, d.Text, err)
		}
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
			t.Errorf("%s: after: %q, %v", c.name, d.Text, err)
		}
		for name, want := range c.has {
			if got := read(name); !strings.Contains(got, want) {
				t.Errorf("%s: %s is %q", c.name, name, got)
			}
		}
		for _, name := range c.none {
			if got := read(name); got != "" {
				t.Errorf("%s: %s is %q", c.name, name, got)
			}
		}
		if n := len(units.Log()); n != c.reloads {
			t.Errorf("%s: %d reloads, want %d", c.name, n, c.reloads)
		}
	}
}

func TestAPasswordIsNotShown(t *testing.T) {
	h, _, _ := hosttest.New(t)
	for _, distribution := range []string{"debian", "fedora"} {
		m := &agentv1.MachineComponent{HttpProxy: "http://me:hunter2@10.0.0.1:3142", ProxyEnvironment: true, Os: &agentv1.OperatingSystem{Distribution: distribution}}
		d, err := proxy.New(&desired.State{Machine: m}, &h)[0].Check(t.Context())
		if err != nil || d.Empty() || strings.Contains(d.Text, "hunter2") || !strings.Contains(d.Text, "me:xxxxx@10.0.0.1") {
			t.Errorf("%s: %q, %v", distribution, d.Text, err)
		}
	}
}
