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
	if diff := cmp.Diff(disabled, string(disable([]byte(debian), true, ""))); diff != "" {
		t.Error(diff)
	}
	lines := rapid.SliceOf(rapid.SampledFrom([]string{"pool a\n", "server b\n", " makestep 1 3\n", "# pool c\n", "poolish\n", "\n", "pool"}))
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(strings.Join(lines.Draw(t, "lines"), ""))
		off := disable(text, true, "")
		if got := disable(off, true, ""); string(got) != string(off) {
			t.Fatalf("not stable: %q", got)
		}
		if got := disable(off, false, ""); string(got) != string(text) {
			t.Fatalf("not the same again: %q of %q", got, text)
		}
	})
}

const (
	unit       = "chrony.service"
	ownPath    = "/etc/chrony/conf.d/provisionr.conf"
	mainPath   = "/etc/chrony/chrony.conf"
	dropInPath = "/etc/systemd/system/chrony.service.d/provisionr.conf"
)

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name  string
		facts facts
		want  daemon
	}{
		{"Debian with the default packages", facts{wanted: true, debian: true}, debianChrony},
		{"Debian, chrony to be installed in place of timesyncd", facts{wanted: true, timesyncd: true}, debianChrony},
		{"Ubuntu 24.04's image", facts{timesyncd: true}, timesyncd},
		{"Ubuntu with both", facts{debian: true, timesyncd: true}, debianChrony},
		{"chrony not wanted", facts{unwanted: true, timesyncd: true}, timesyncd},
		{"chrony not wanted, and still there", facts{unwanted: true, debian: true, timesyncd: true}, timesyncd},
		{"nothing wanted", facts{unwanted: true}, daemon{}},
		{"Fedora and Rocky", facts{fedora: true, dnf: true}, fedoraChrony},
		{"Fedora, to be installed", facts{wanted: true, dnf: true}, fedoraChrony},
		{"nothing there", facts{}, debianChrony},
	} {
		if got := choose(c.facts); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got.unit, c.want.unit)
		}
	}
}

func TestFedoraIncludesOurPart(t *testing.T) {
	const before = "# Use public servers\npool 2.fedora.pool.ntp.org iburst\nmakestep 1.0 3\nrtcsync"
	const after = "# Use public servers\n#provisionr# pool 2.fedora.pool.ntp.org iburst\n#provisionr# makestep 1.0 3\nrtcsync\ninclude /etc/chrony.d/provisionr.conf\n"
	on := disable([]byte(before), true, fedoraChrony.include)
	if diff := cmp.Diff(after, string(on)); diff != "" {
		t.Error(diff)
	}
	if again := disable(on, true, fedoraChrony.include); string(again) != after {
		t.Errorf("again: %q", again)
	}
	if off := disable(on, false, fedoraChrony.include); string(off) != before+"\n" {
		t.Errorf("off: %q", off)
	}
}

func TestTimesyncd(t *testing.T) {
	for capabilities, log := range map[string][]string{
		"000001ffffffffff": {"daemon-reload", "restart " + timesyncd.unit}, "00000000a80425fb": {"daemon-reload"},
	} {
		h, u := machine(t, capabilities)
		u.Set(timesyncd.unit, host.Unit{Load: "loaded", Active: "inactive", File: "enabled"})
		settle(t, h, "10.0.0.1", "ntp.example")
		own, err := os.ReadFile(filepath.Join(h.Root, timesyncd.ownPath))
		if want := "# Managed by provisionr-agent.\n[Time]\nNTP=\nNTP=10.0.0.1 ntp.example\nFallbackNTP=\nPollIntervalMaxSec=64\n"; err != nil || string(own) != want {
			t.Errorf("our part %q, %v", own, err)
		}
		if got := u.Log(); !slices.Equal(got, log) {
			t.Errorf("units: %v, want %v", got, log)
		}
	}
}

func TestPools(t *testing.T) {
	want := "# Managed by provisionr-agent.\nserver a iburst minpoll 4 maxpoll 6\npool b iburst\nmakestep 0.1 3\n"
	if got := string(sources([]string{"a"}, []string{"b"})); got != want {
		t.Errorf("got %q", got)
	}
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
