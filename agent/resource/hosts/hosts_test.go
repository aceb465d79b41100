package hosts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const head = `# Managed by provisionr-agent.
127.0.0.1 localhost
10.0.0.7 zk-1.example.internal zk-1

::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
` + marker + "\n"

func TestRender(t *testing.T) {
	for _, c := range []struct{ name, now, want string }{
		{"empty", "", head},
		{"debian's", "127.0.0.1\tlocalhost\n127.0.1.1\tzk-1.example.internal zk-1\n# The following\n::1 localhost ip6-localhost ip6-loopback\nfe00::0 ip6-localnet\n", head},
		{"foreign lines of a new machine", "127.0.0.1 localhost\n10.9.9.9 db # the old one\n", head + "10.9.9.9 db # the old one\n"},
		{"below the marker", head + "# mine\n10.9.9.9 db\n\n127.0.1.1 other\n10.0.0.7 again\n1.2.3.4 zk-1\n", head + "# mine\n10.9.9.9 db\n\n"},
		{"above the marker", "6.6.6.6 evil\n" + head + "10.9.9.9 db\n", head + "10.9.9.9 db\n"},
		{"another address before", strings.ReplaceAll(head, "10.0.0.7", "10.0.0.8") + "10.9.9.9 db\n", head + "10.9.9.9 db\n"},
	} {
		if diff := cmp.Diff(c.want, string(render(c.now, "10.0.0.7", "zk-1.example.internal", "zk-1"))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestRenderIsStable(t *testing.T) {
	line := rapid.StringMatching(`([0-9.:a-f]{0,9}[ \t]+(localhost|zk-1|db|ip6-allnodes)( #x)?|# [a-z]*|)`)
	rapid.Check(t, func(t *rapid.T) {
		now := strings.Join(rapid.SliceOfN(line, 0, 12).Draw(t, "lines"), "\n")
		once := render(now, "10.0.0.7", "zk-1.example.internal", "zk-1")
		if twice := render(string(once), "10.0.0.7", "zk-1.example.internal", "zk-1"); string(twice) != string(once) {
			t.Fatalf("rendered again:\n%s\nfirst:\n%s", twice, once)
		}
	})
}

func TestConverge(t *testing.T) {
	h, _, _ := hosttest.New(t)
	kernel := filepath.Join(h.Root, kernelName)
	if err := os.MkdirAll(filepath.Dir(kernel), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kernel, []byte("debian\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &desired.State{Machine: &agentv1.MachineComponent{Name: "zk-1", Fqdn: "zk-1.example.internal", Address: "10.0.0.7"}}
	for _, r := range New(s, &h) {
		if d, err := r.Check(t.Context()); err != nil || d.Empty() {
			t.Errorf("%s before: %q, %v", r.Name(), d.Text, err)
		}
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
			t.Errorf("%s after: %q, %v", r.Name(), d.Text, err)
		}
	}
	if b, err := os.ReadFile(kernel); err != nil || string(b) != "zk-1" {
		t.Errorf("kernel's name is %q, %v", b, err)
	}
}

func TestNoAddressYet(t *testing.T) {
	h, _, _ := hosttest.New(t)
	r := New(&desired.State{Machine: &agentv1.MachineComponent{Name: "zk-1"}}, &h)[1]
	if _, err := r.Check(t.Context()); err == nil {
		t.Error("a hosts file without the own address is no state to be in")
	}
}
