package pkg

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
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

const inRelease = "-----BEGIN PGP SIGNED MESSAGE-----\nOrigin: Debian\nSHA256:\n-----BEGIN PGP SIGNATURE-----\n"

// listed adds packages to the archive's list, and those that are cached to apt's cache.
func (m *machine) listed(cached bool, stanzas ...string) {
	m.Helper()
	const list = listsDir + "/deb.debian.org_debian_dists_bookworm_main_binary-"
	m.write(listsDir+"/deb.debian.org_debian_dists_bookworm_InRelease", inRelease)
	var b strings.Builder
	for _, s := range stanzas {
		name, rest, _ := strings.Cut(s, "\n")
		deb := []byte("deb of " + name)
		sum := sha256.Sum256(deb)
		if rest != "" {
			rest += "\n"
		}
		fmt.Fprintf(&b, "Package: %s\nVersion: 1\nArchitecture: all\n%sFilename: pool/%s.deb\nSize: %d\nSHA256: %s\n\n", name, rest, name, len(deb), hex.EncodeToString(sum[:]))
		if cached {
			m.write(archivesDir+"/"+name+"_1_all.deb", string(deb))
		}
	}
	m.write(list+debianArch()+"_Packages", b.String())
}

func TestAdditions(t *testing.T) {
	installedPackages := "Package: libc\nStatus: install ok installed\nVersion: 2.36\nProvides: libc-abi (= 5)\n\nPackage: old\nStatus: install ok installed\nVersion: 1\nBreaks: breaks-me (<< 2)\n"
	for _, c := range []struct {
		name    string
		listed  []string
		targets []target
		want    string
		prepare func(*machine)
	}{
		{"alone", []string{"a\nDepends: libc (>= 2.30), libc-abi (= 5)"}, []target{{name: "a"}}, "a", nil},
		{"with dependencies", []string{"a\nDepends: b | c, d", "b\nDepends: d:any", "d\n", "c\n"}, []target{{name: "a"}}, "a b d", nil},
		{"what is there is not taken again", []string{"a\nDepends: nothing | libc"}, []target{{name: "a"}}, "a", nil},
		{"needs a newer one", []string{"a\nDepends: libc (>= 3)", "libc\n"}, []target{{name: "a"}}, "", nil},
		{"dependency unknown", []string{"a\nDepends: b"}, []target{{name: "a"}}, "", nil},
		{"conflict with what is there", []string{"a\nConflicts: old"}, []target{{name: "a"}}, "", nil},
		{"what is there breaks it", []string{"breaks-me\n"}, []target{{name: "breaks-me"}}, "", nil},
		{"conflict within", []string{"a\nDepends: b", "b\nBreaks: a (<= 1)"}, []target{{name: "a"}}, "", nil},
		{"provides and conflicts with the same", []string{"a\nProvides: mta\nConflicts: mta"}, []target{{name: "a"}}, "a", nil},
		{"pre-dependency within", []string{"a\nPre-Depends: b", "b\n"}, []target{{name: "a"}}, "", nil},
		{"pre-dependency there", []string{"a\nPre-Depends: libc"}, []target{{name: "a"}}, "a", nil},
		{"other version wanted", []string{"a\n"}, []target{{name: "a", version: "2"}}, "", nil},
		{"circle", []string{"a\nDepends: b", "b\nDepends: a"}, []target{{name: "a"}}, "a b", nil},
		{"preferences", []string{"a\n"}, []target{{name: "a"}}, "", func(m *machine) { m.write("/etc/apt/preferences.d/x", "Package: *\n") }},
		{"several architectures", []string{"a\n"}, []target{{name: "a"}}, "", func(m *machine) { m.write("/var/lib/dpkg/arch", "amd64\ni386\n") }},
		{"configured release", []string{"a\n"}, []target{{name: "a"}}, "", func(m *machine) { m.write("/etc/apt/apt.conf.d/x", "APT::Default-Release \"sid\";\n") }},
		{"unsigned", []string{"a\n"}, []target{{name: "a"}}, "", func(m *machine) {
			m.write(listsDir+"/deb.debian.org_debian_dists_bookworm_InRelease", "Origin: Debian\n")
		}},
		{"only by request", []string{"a\n"}, []target{{name: "a"}}, "", func(m *machine) {
			m.write(listsDir+"/deb.debian.org_debian_dists_bookworm_InRelease", "x\nNotAutomatic: yes\n"+inRelease)
		}},
		{"dpkg is in the midst of something", []string{"a\n"}, []target{{name: "a"}}, "", func(m *machine) {
			m.write(statusPath, "Package: x\nStatus: install ok unpacked\nVersion: 1\n")
		}},
	} {
		m := newMachine(t)
		m.write(statusPath, installedPackages)
		m.listed(true, c.listed...)
		if c.prepare != nil {
			c.prepare(m)
		}
		a := m.resource().manager.(*apt)
		adds, err := a.additions(t.Context(), c.targets)
		var names []string
		for _, s := range adds {
			names = append(names, s.name)
		}
		if got := strings.Join(names, " "); err != nil || got != c.want {
			t.Errorf("%s: got %q, want %q, %v", c.name, got, c.want, err)
		}
	}
}

// TestOneGo shows that what can be added plainly is fetched once and given to dpkg alone, under a journal, with marks for apt.
func TestOneGo(t *testing.T) {
	for _, cached := range []bool{true, false} {
		m := newMachine(t)
		stanzas := []string{"vim\nDepends: vim-runtime", "vim-runtime\n"}
		m.listed(cached, stanzas...)
		r := m.resource("vim")
		m.commands.On("dpkg", func(call hosttest.Call) (host.Result, error) {
			a := r.manager.(*apt)
			j, err := a.readJournal()
			if err != nil || !slices.Contains(j.Packages, "vim-runtime") {
				t.Errorf("dpkg ran without a journal: %v", err)
			}
			if may := a.mayLeaveUnsynced(); call.Unsynced != may || may && string(j.Before[0].Content) != statusFile {
				t.Errorf("unsynced %v, may be %v, and the journal keeps %d files", call.Unsynced, may, len(j.Before))
			}
			m.write(statusPath, m.read(statusPath)+"\nPackage: vim\nStatus: install ok installed\nVersion: 1\n\nPackage: vim-runtime\nStatus: install ok installed\nVersion: 1\n")
			return host.Result{}, nil
		})
		m.commands.On("apt-get", func(hosttest.Call) (host.Result, error) {
			m.listed(true, stanzas...)
			return host.Result{}, nil
		})
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
			t.Errorf("%q, %v", d.Text, err)
		}
		lines := m.commands.Lines()
		last := lines[len(lines)-1]
		if want := "dpkg --force-confdef --force-confold --force-unsafe-io --install /var/cache/apt/archives/vim_1_all.deb /var/cache/apt/archives/vim-runtime_1_all.deb"; last != want {
			t.Errorf("ran %q", last)
		}
		if len(lines) != map[bool]int{true: 1, false: 2}[cached] {
			t.Errorf("ran %q", lines)
		}
		if got := m.read(statesPath); !strings.HasPrefix(got, "Package: vim-runtime\n") || strings.Contains(got, "Package: vim\n") {
			t.Errorf("marks %q", got)
		}
		if _, err := os.Stat(m.path(manDBFlag)); err != nil {
			t.Error("man-db's index stays off")
		}
		if _, err := os.Stat(m.path(settledPath)); err != nil || r.manager.(*apt).mayLeaveUnsynced() {
			t.Error("the next transaction would not be synced either")
		}
	}
}

// TestHungAptGet runs a real program that never ends: it and its children are killed, the lock and the policy are given back.
func TestHungAptGet(t *testing.T) {
	m := newMachine(t)
	pids := m.path("/pids")
	fake := filepath.Join(t.TempDir(), "apt-get")
	if err := os.WriteFile(fake, []byte("#!/bin/sh\nsleep 1000 &\necho $! $$ >"+pids+"\nwait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.host.Commands = replaced{"apt-get", fake}
	s := &desired.State{Pool: &agentv1.PoolComponent{Packages: []*agentv1.Package{{Name: "vim"}}}}
	l := defaultLimits
	l.transaction = 300 * time.Millisecond
	err := newPackages(s, &m.host, l).Apply(t.Context())
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "killed with its process group") {
		t.Errorf("kind %s: %v", errs.KindOf(err), err)
	}
	for pid := range strings.FieldsSeq(m.read("/pids")) {
		alive := func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return err == nil && !strings.Contains(string(stat), ") Z ")
		}
		for end := time.After(10 * time.Second); alive(); {
			select {
			case <-end:
				t.Fatalf("process %s lives", pid)
			case <-time.After(time.Millisecond):
			}
		}
	}
	if leftover(&m.host) {
		t.Error("the policy stayed")
	}
}

// replaced runs another program in the place of one.
type replaced struct{ name, by string }

func (r replaced) Run(ctx context.Context, c host.Command) (host.Result, error) {
	if c.Path == r.name {
		c.Path = r.by
	}
	return host.Processes{}.Run(ctx, c)
}

// TestLockNamesItsHolder has another process hold dpkg's lock.
func TestLockNamesItsHolder(t *testing.T) {
	m := newMachine(t)
	m.write(lockPath, "")
	holder := exec.Command("perl", "-e", `use Fcntl; open(F, "+<", $ARGV[0]) or die; my $p = pack("ssx4qqlx4", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $p) or die; $|=1; print "x"; <STDIN>`, m.path(lockPath))
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	m.write(fmt.Sprintf("/proc/%d/comm", holder.Process.Pid), "unattended-upgr\n")
	s := &desired.State{Pool: &agentv1.PoolComponent{Packages: []*agentv1.Package{{Name: "vim"}}}}
	l := defaultLimits
	l.lock = 50 * time.Millisecond
	r := newPackages(s, &m.host, l)
	err = r.Apply(t.Context())
	if want := fmt.Sprintf("unattended-upgr (process %d) holds", holder.Process.Pid); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("kind %s: %v", errs.KindOf(err), err)
	}
	if err := errors.Join(in.Close(), holder.Wait()); err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Errorf("the lock is free: %v", err)
	}
}

func TestHoldAndRepository(t *testing.T) {
	m := newMachine(t)
	m.commands.On("dpkg --set-selections", func(call hosttest.Call) (host.Result, error) {
		for line := range strings.Lines(call.Stdin) {
			f := strings.Fields(line)
			other := map[string]string{"hold": "install", "install": "hold"}[f[1]]
			m.write(statusPath, strings.Replace(m.read(statusPath), "Package: "+f[0]+"\nStatus: "+other, "Package: "+f[0]+"\nStatus: "+f[1], 1))
		}
		return host.Result{}, nil
	})
	m.write(listsDir+"/own.example_deb_dists_x_main_binary-"+debianArch()+"_Packages",
		"Package: nano\nVersion: 7.2-1\nArchitecture: all\n\nPackage: nano\nVersion: 7.10-1\nArchitecture: all\n")
	s := &desired.State{Pool: &agentv1.PoolComponent{
		Repositories: []*agentv1.Repository{{Name: "own", Uris: []string{"https://user:pw@own.example/deb/"}, Suites: []string{"x"}, Components: []string{"main"}}},
		Packages:     []*agentv1.Package{{Name: "nano", Hold: true, Repository: "own"}, {Name: "chrony"}},
	}}
	r := New(s, &m.host)[0]
	if d, err := r.Check(t.Context()); err != nil || d.Text != "nano 7.2-1: not known to come from repository own\n+nano held" {
		t.Errorf("%q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines := m.commands.Lines(); !slices.Equal(lines, []string{"dpkg --set-selections"}) {
		t.Errorf("an installed version of the repository: ran %q", lines)
	}
	// A new agent remembers, and releases only what is ours.
	if d, err := New(s, &m.host)[0].Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("%q, %v", d.Text, err)
	}
	s.Pool.Packages[0].Hold = false
	r = New(s, &m.host)[0]
	if d, err := r.Check(t.Context()); err != nil || d.Text != "-nano held" {
		t.Errorf("%q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Pool.Packages[0].Repository = "none"
	if err := New(s, &m.host)[0].Apply(t.Context()); !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
	// Another definition under the name asks again, and its newest version is taken.
	s.Pool.Packages[0].Repository = "own"
	s.Pool.Repositories[0].Uris = append(s.Pool.Repositories[0].Uris, "https://own.example/deb")
	m.write(statusPath, strings.Replace(m.read(statusPath), "Version: 7.2-1", "Version: 9", 1))
	m.commands.Reset()
	m.commands.Answer("apt-get", "")
	if err := New(s, &m.host)[0].Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"install nano=7.10-1"}, m.verbs()); diff != "" {
		t.Error(diff)
	}
}

func TestCompareVersions(t *testing.T) {
	ordered := []string{"0~~", "0~", "0", "1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0-1+deb12u1", "1.0-2", "1.0a-1", "1.9-1", "1.10-1", "1.10-1.1", "1:0.5", "2:0"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got, want := compareVersions(a, b), i-j; got*want < 0 || (got == 0) != (want == 0) {
				t.Errorf("%s and %s: %d", a, b, got)
			}
		}
	}
	if compareVersions("1.01", "1.1") != 0 || compareVersions("0:1-0", "1") != 0 {
		t.Error("equal versions differ")
	}
}

func FuzzStanzas(f *testing.F) {
	f.Add([]byte("Package: a\nVersion: 1\nDepends: b (>= 1) | c, d:any\nConffiles:\n /etc/x 0123\n\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		w := newWorld()
		err := readStanzas(bytes.NewReader(content), nil, func(s *stanza) {
			if s.name == "" {
				t.Error("a package without a name")
			}
			w.add(s)
			for _, group := range parseRelations(s.depends) {
				w.satisfies(group)
			}
			w.clashes(s)
			if compareVersions(s.version, s.version) != 0 {
				t.Errorf("%q differs from itself", s.version)
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
}
