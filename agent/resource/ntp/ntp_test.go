package ntp

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const debian = `confdir /etc/chrony/conf.d
# Use Debian vendor zone.
pool 2.debian.pool.ntp.org iburst
sourcedir /run/chrony-dhcp
makestep 1 3
`

const disabled = `confdir /etc/chrony/conf.d
# Use Debian vendor zone.
#provisionr# pool 2.debian.pool.ntp.org iburst
sourcedir /run/chrony-dhcp
#provisionr# makestep 1 3
`

func TestDisableAndBack(t *testing.T) {
	if diff := cmp.Diff(disabled, string(disable([]byte(debian), true))); diff != "" {
		t.Error(diff)
	}
	lines := rapid.SliceOf(rapid.SampledFrom([]string{"pool a\n", "server b\n", " makestep 1 3\n", "# pool c\n", "poolish\n", "\n", "pool"}))
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(strings.Join(lines.Draw(t, "lines"), ""))
		off := disable(text, true)
		if got := disable(off, true); string(got) != string(off) {
			t.Fatalf("not stable: %q", got)
		}
		if got := disable(off, false); string(got) != string(text) {
			t.Fatalf("not the same again: %q of %q", got, text)
		}
	})
}

func machine(t *testing.T, capabilities string) (*host.Host, *hosttest.Units) {
	t.Helper()
	h, _, u := hosttest.New(t)
	for name, content := range map[string]string{
		"proc/1/status": "Name:\tagent\nCapBnd:\t" + capabilities + "\n", "etc/chrony/chrony.conf": debian,
	} {
		on := filepath.Join(h.Root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(on), 0o755), os.WriteFile(on, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return &h, u
}

func settle(t *testing.T, h *host.Host, servers ...string) {
	t.Helper()
	r := New(&desired.State{Machine: &agentv1.MachineComponent{NtpServers: servers}, Pool: &agentv1.PoolComponent{}}, h)[0]
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

func TestConverge(t *testing.T) {
	for _, c := range []struct {
		name, capabilities string
		observes           bool
	}{{"virtual machine", "000001ffffffffff", false}, {"container", "00000000a80425fb", true}} {
		t.Run(c.name, func(t *testing.T) {
			h, u := machine(t, c.capabilities)
			u.Set(unit, host.Unit{Load: "loaded", Active: "inactive", File: "disabled"})
			settle(t, h, "10.0.0.1", "ntp.example")
			own, err := os.ReadFile(filepath.Join(h.Root, ownPath))
			want := "# Managed by provisionr-agent.\nserver 10.0.0.1 iburst minpoll 4 maxpoll 6\nserver ntp.example iburst minpoll 4 maxpoll 6\nmakestep 0.1 3\n"
			if err != nil || string(own) != want {
				t.Errorf("our part %q, %v", own, err)
			}
			if _, err := os.Stat(filepath.Join(h.Root, dropInPath)); (err == nil) != c.observes {
				t.Errorf("drop-in: %v", err)
			}
			if got := u.Log(); !slices.Equal(got, []string{"daemon-reload", "restart " + unit, "enable " + unit}) {
				t.Errorf("units: %v", got)
			}
			// No servers any more: the distribution's own are back.
			settle(t, h)
			if b, err := os.ReadFile(filepath.Join(h.Root, mainPath)); err != nil || string(b) != debian {
				t.Errorf("chrony.conf %q, %v", b, err)
			}
		})
	}
}

func TestStoppedServiceIsDrift(t *testing.T) {
	h, u := machine(t, "000001ffffffffff")
	u.Set(unit, host.Unit{Load: "loaded", Active: "inactive", File: "enabled"})
	settle(t, h, "10.0.0.1")
	u.Set(unit, host.Unit{Load: "loaded", Active: "failed", File: "enabled"})
	settle(t, h, "10.0.0.1")
	if got := u.Log(); got[len(got)-1] != "start "+unit {
		t.Errorf("units: %v", got)
	}
}
