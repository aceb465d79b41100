package pkg

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const statusFile = `Package: chrony
Status: install ok installed
Version: 4.3-2
Provides: time-daemon

Package: nano
Status: install ok installed
Version: 7.2-1
Description: a long
 description: of it

Package: oldconf
Status: deinstall ok config-files
Version: 1
`

func TestDiff(t *testing.T) {
	pkg := func(name, version string, absent bool) *agentv1.Package {
		return &agentv1.Package{Name: name, Version: version, Absent: absent}
	}
	for _, c := range []struct {
		name        string
		status      string
		interrupted bool
		want        *agentv1.Package
		lines       string
		targets     string
	}{
		{"installed", statusFile, false, pkg("nano", "", false), "", ""},
		{"same version", statusFile, false, pkg("nano", "7.2-1", false), "", ""},
		{"other version", statusFile, false, pkg("nano", "7.2-2", false), "-nano 7.2-1\n+nano 7.2-2", "nano=7.2-2"},
		{"missing", statusFile, false, pkg("vim", "", false), "+vim", "vim"},
		{"missing, with version", statusFile, false, pkg("vim", "9", false), "+vim 9", "vim=9"},
		{"virtual", statusFile, false, pkg("time-daemon", "", false), "", ""},
		{"remove", statusFile, false, pkg("nano", "", true), "-nano 7.2-1", "nano-"},
		{"removed", statusFile, false, pkg("oldconf", "", true), "", ""},
		{"only its configuration", statusFile, false, pkg("oldconf", "", false), "+oldconf", "oldconf"},
		{"interrupted", statusFile, true, pkg("nano", "", false), "dpkg was interrupted", ""},
		{"half configured", "Package: nano\nStatus: install ok half-configured\nVersion: 1\n", false, pkg("nano", "", false), "nano is half-configured\n+nano", "nano"},
		{"triggers", "Package: nano\nStatus: install ok triggers-pending\nVersion: 1\n", false, pkg("nano", "1", false), "nano is in triggers-pending", ""},
	} {
		p := newPackages(&desired.State{Pool: &agentv1.PoolComponent{}}, &host.Host{}, defaultLimits)
		p.want = []*agentv1.Package{c.want}
		in, err := parse(strings.NewReader(c.status))
		if err != nil {
			t.Fatal(err)
		}
		if c.interrupted {
			in.troubles = append(in.troubles, "dpkg was interrupted")
		}
		got := p.diff(in, &noted{})
		var targets []string
		for _, t := range got.install {
			targets = append(targets, strings.TrimSuffix(t.name+"="+t.version, "="))
		}
		for _, name := range got.remove {
			targets = append(targets, name+"-")
		}
		if strings.Join(got.lines, "\n") != c.lines || strings.Join(targets, " ") != c.targets {
			t.Errorf("%s: %q %q", c.name, got.lines, targets)
		}
		if got.repair != (strings.Contains(c.lines, "half") || strings.Contains(c.lines, "triggers") || c.interrupted) {
			t.Errorf("%s: repair %v", c.name, got.repair)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(statusFile))
	f.Fuzz(func(t *testing.T, content []byte) {
		in, err := parse(bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		for name := range in.versions {
			if name == "" || strings.ContainsAny(name, "\n") {
				t.Errorf("package %q", name)
			}
		}
	})
}

func TestImplied(t *testing.T) {
	s := &desired.State{Pool: &agentv1.PoolComponent{
		Packages: []*agentv1.Package{{Name: "chrony", Version: "4.3-2"}},
		Firewall: &agentv1.Firewall{Enabled: true},
		Users:    []*agentv1.User{{Name: "ada", Admin: true}},
	}}
	var got []string
	for _, p := range wanted(s) {
		got = append(got, p.Name+p.Version)
	}
	if want := []string{"chrony4.3-2", "nftables", "sudo"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// machine has a status file, a scripted apt-get that installs what it is told, and a policy check in it.
type machine struct {
	*testing.T
	host     host.Host
	commands *hosttest.Commands
}

func newMachine(t *testing.T) *machine {
	h, c, _ := hosttest.New(t)
	m := &machine{t, h, c}
	m.write(statusPath, statusFile)
	m.write(manDBFlag, "")
	m.write(listsDir+"/deb.debian.org_debian_dists_bookworm_InRelease", "")
	m.commands.On("apt-get", func(call hosttest.Call) (host.Result, error) {
		mine, err := ours(&m.host)
		if !mine || err != nil {
			t.Errorf("%s runs without the policy: %v", call.Line, err)
		}
		if _, targets, ok := strings.Cut(call.Line, " install "); ok {
			if _, err := os.Stat(m.path(manDBFlag)); err == nil {
				t.Error("man-db's index is rebuilt in the transaction")
			}
			for name := range strings.FieldsSeq(targets) {
				m.write(statusPath, m.read(statusPath)+"\nPackage: "+name+"\nStatus: install ok installed\nVersion: 1\n")
			}
		}
		return host.Result{}, nil
	})
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.host.Root, name) }

func (m *machine) write(name, content string) {
	m.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(m.path(name)), 0o755), os.WriteFile(m.path(name), []byte(content), 0o644)); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) read(name string) string {
	m.Helper()
	b, err := os.ReadFile(m.path(name))
	if err != nil {
		m.Fatal(err)
	}
	return string(b)
}

func (m *machine) resource(names ...string) *packages {
	s := &desired.State{Pool: &agentv1.PoolComponent{}}
	for _, n := range names {
		s.Pool.Packages = append(s.Pool.Packages, &agentv1.Package{Name: n})
	}
	return New(s, &m.host)[0].(*packages)
}

// verbs returns the apt-get commands that were run, without options.
func (m *machine) verbs() []string {
	var list []string
	for _, line := range m.commands.Lines() {
		for _, verb := range []string{"update", "install", "--configure"} {
			if _, rest, ok := strings.Cut(line, " "+verb); ok {
				list = append(list, verb+rest)
			}
		}
	}
	return list
}

func TestOneTransaction(t *testing.T) {
	m := newMachine(t)
	r := m.resource("vim", "curl", "nano")
	if d, err := r.Check(t.Context()); err != nil || d.Text != "+vim\n+curl" {
		t.Fatalf("before: %q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after: %q, %v", d.Text, err)
	}
	if diff := cmp.Diff([]string{"install vim curl"}, m.verbs()); diff != "" {
		t.Error(diff)
	}
	if leftover(&m.host) {
		t.Error("the policy stayed")
	}
	m.commands.Reset()
	if err := r.Apply(t.Context()); err != nil || len(m.commands.Lines()) > 0 {
		t.Errorf("nothing to do, but ran %v, %v", m.commands.Lines(), err)
	}
}

func TestUpdateOnlyWhenNeeded(t *testing.T) {
	future := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name    string
		prepare func(m *machine)
		want    []string
	}{
		{"fresh lists", func(*machine) {}, []string{"install vim"}},
		{"no lists", func(m *machine) { os.RemoveAll(m.path(listsDir)) }, []string{"update", "install vim"}},
		{"newer sources", func(m *machine) {
			m.write("/etc/apt/sources.list.d/a.sources", "")
			os.Chtimes(m.path("/etc/apt/sources.list.d/a.sources"), future, future)
		}, []string{"update", "install vim"}},
		{"unknown package", func(m *machine) {
			tried := false
			m.commands.On("apt-get", func(call hosttest.Call) (host.Result, error) {
				if strings.Contains(call.Line, " install ") && !tried {
					tried = true
					return host.Result{Exit: 100, Stderr: []byte("E: Unable to locate package vim\n")}, nil
				}
				return host.Result{}, nil
			})
		}, []string{"install vim", "update", "install vim"}},
	} {
		m := newMachine(t)
		c.prepare(m)
		if err := m.resource("vim").Apply(t.Context()); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, m.verbs()); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestFailuresAreNamed(t *testing.T) {
	for stderr, want := range map[string]errs.Kind{
		"E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1 (apt)": errs.Unavailable,
		"dpkg: error: dpkg frontend lock was locked by another process with pid 7":         errs.Unavailable,
		"E: Unable to locate package vim":                                                  errs.NotFound,
		"E: Version '9' for 'vim' was not found":                                           errs.NotFound,
		"Temporary failure resolving 'deb.debian.org'":                                     errs.Unavailable,
		"W: GPG error: NO_PUBKEY 123":                                                      errs.Denied,
		"E: Unable to correct problems, you have held broken packages.":                    errs.Conflict,
		"write error: No space left on device":                                             errs.Exhausted,
		"dpkg: error processing package vim":                                               errs.Internal,
	} {
		m := newMachine(t)
		m.commands.Fail("apt-get", 100, stderr)
		err := m.resource("vim").Apply(t.Context())
		if !errs.Is(err, want) {
			t.Errorf("%s: kind %s: %v", stderr, errs.KindOf(err), err)
		}
		if want != errs.Internal && errs.HintOf(err) == "" {
			t.Errorf("%s: no hint", stderr)
		}
		if leftover(&m.host) {
			t.Errorf("%s: the policy stayed", stderr)
		}
	}
}

func TestAfterACrash(t *testing.T) {
	m := newMachine(t)
	m.write(policyPath, "#!/bin/sh\n# of the admin\nexit 0\n")
	if _, err := deny(&m.host); err != nil { // and never taken away
		t.Fatal(err)
	}
	m.write(updatesPath+"/0001", "")
	m.commands.On("dpkg", func(hosttest.Call) (host.Result, error) {
		return host.Result{}, os.Remove(m.path(updatesPath + "/0001"))
	})
	r := m.resource("nano")
	d, err := r.Check(t.Context())
	if err != nil || !strings.Contains(d.Text, "dpkg was interrupted") || !strings.Contains(d.Text, "services cannot start") {
		t.Errorf("before: %q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after: %q, %v", d.Text, err)
	}
	if diff := cmp.Diff([]string{"--configure -a"}, m.verbs()); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(m.read(policyPath), "of the admin") {
		t.Error("the admin's policy was lost")
	}
}

func BenchmarkCheck(b *testing.B) {
	h, _, _ := hosttest.New(b)
	if err := os.MkdirAll(filepath.Join(h.Root, "var/lib/dpkg"), 0o755); err != nil {
		b.Fatal(err)
	}
	big := strings.Repeat(statusFile+"\n", 300)
	if err := os.WriteFile(filepath.Join(h.Root, statusPath), []byte(big), 0o644); err != nil {
		b.Fatal(err)
	}
	s := &desired.State{Pool: &agentv1.PoolComponent{Packages: []*agentv1.Package{{Name: "nano"}}}}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			if d, err := New(s, &h)[0].Check(b.Context()); err != nil || !d.Empty() {
				b.Fatal(d, err)
			}
		}
	})
	r := New(s, &h)[0]
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			if d, err := r.Check(b.Context()); err != nil || !d.Empty() {
				b.Fatal(d, err)
			}
		}
	})
}
