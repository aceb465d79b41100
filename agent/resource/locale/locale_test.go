package locale

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// archive is one as locale-gen makes it, of the names alone.
func archive(names ...string) []byte {
	b := make([]byte, headSize)
	binary.NativeEndian.PutUint32(b, archiveMagic)
	table := strings.Join(names, "\x00") + "\x00"
	binary.NativeEndian.PutUint32(b[offsetAt:], headSize)
	binary.NativeEndian.PutUint32(b[usedAt:], uint32(len(table)))
	return append(b, table...)
}

type machine struct {
	*testing.T
	host     host.Host
	commands *hosttest.Commands
}

func newMachine(t *testing.T) *machine {
	h, c, _ := hosttest.New(t)
	m := &machine{t, h, c}
	m.write("usr/share/i18n/SUPPORTED", "de_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\nde_DE@euro ISO-8859-15\n")
	m.write("etc/locale.gen", "# de_DE.UTF-8 UTF-8\nen_US.UTF-8 UTF-8")
	c.On("locale-gen", func(hosttest.Call) (host.Result, error) {
		var names []string
		for line := range strings.Lines(m.read("etc/locale.gen")) {
			if !strings.HasPrefix(line, "#") {
				names = append(names, normal(strings.Fields(line)[0]))
			}
		}
		m.write("usr/lib/locale/locale-archive", string(archive(names...)))
		return host.Result{}, nil
	})
	return m
}

func (m *machine) write(name, content string) {
	m.Helper()
	hosttest.Write(m, m.host, name, content)
}

func (m *machine) read(name string) string {
	m.Helper()
	b, err := os.ReadFile(filepath.Join(m.host.Root, name))
	if err != nil {
		m.Fatal(err)
	}
	return string(b)
}

func (m *machine) resource(distribution, name string) converge.Resource {
	return New(&desired.State{
		Machine: &agentv1.MachineComponent{Os: &agentv1.OperatingSystem{Distribution: distribution}}, Pool: &agentv1.PoolComponent{Locale: name},
	}, &m.host)[0]
}

func TestConverge(t *testing.T) {
	for _, c := range []struct {
		name, distribution, locale, path, ran string
		prepare                               func(m *machine)
	}{
		{"built in", "debian", "C.UTF-8", "etc/default/locale", "", nil},
		{"generated", "debian", "de_DE.UTF-8", "etc/default/locale", "locale-gen", nil},
		{"other spelling", "ubuntu", "de_DE.utf8", "etc/default/locale", "locale-gen", nil},
		{"with modifier", "debian", "de_DE@euro", "etc/default/locale", "locale-gen", nil},
		{"in the archive", "debian", "de_DE.UTF-8", "etc/default/locale", "", func(m *machine) {
			m.write("usr/lib/locale/locale-archive", string(archive("C.utf8", "de_DE.utf8")))
		}},
		{"directory of a language pack", "fedora", "de_DE.UTF-8", "etc/locale.conf", "", func(m *machine) { m.write("usr/lib/locale/de_DE.utf8/LC_TIME", "") }},
		{"link to the new place", "debian", "C.UTF-8", "etc/locale.conf", "", func(m *machine) {
			m.write("etc/default/x", "")
			if err := os.Symlink("../locale.conf", filepath.Join(m.host.Root, "etc/default/locale")); err != nil {
				m.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			if c.prepare != nil {
				c.prepare(m)
			}
			r := m.resource(c.distribution, c.locale)
			if d, err := r.Check(t.Context()); err != nil || d.Empty() || strings.Contains(d.Text, "not generated") != (c.ran != "") {
				t.Errorf("before: %q, %v", d.Text, err)
			}
			if err := r.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
				t.Errorf("after: %q, %v", d.Text, err)
			}
			if got := m.read(c.path); got != "LANG="+c.locale+"\n" {
				t.Errorf("%s: %q", c.path, got)
			}
			if got := strings.Join(m.commands.Lines(), "; "); got != c.ran {
				t.Errorf("ran %q, want %q", got, c.ran)
			}
			if got := r.(converge.Triggered).Triggers(); len(got) != 1 || got[0].Name != "/"+c.path {
				t.Errorf("triggers %v", got)
			}
		})
	}
}

func TestLocaleThatCannotBe(t *testing.T) {
	m := newMachine(t)
	if err := m.resource("debian", "xx_XX.UTF-8").Apply(t.Context()); !errs.Is(err, errs.NotFound) {
		t.Errorf("unknown: %v", err)
	}
	m.commands.Answer("locale-gen", "")
	if err := m.resource("debian", "de_DE.UTF-8").Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "did not make it") {
		t.Errorf("not made: %v", err)
	}
	if err := os.Remove(filepath.Join(m.host.Root, "usr/share/i18n/SUPPORTED")); err != nil {
		t.Fatal(err)
	}
	if err := m.resource("fedora", "de_DE.UTF-8").Apply(t.Context()); !errs.Is(err, errs.NotFound) || !strings.Contains(errs.HintOf(err), "glibc-langpack-de") {
		t.Errorf("no sources: %v", err)
	}
	if _, err := os.Stat(filepath.Join(m.host.Root, "etc/default/locale")); !os.IsNotExist(err) {
		t.Errorf("a locale that is not there was set: %v", err)
	}
}

func FuzzArchived(f *testing.F) {
	f.Add(archive("C.utf8", "de_DE.utf8"), "de_DE.utf8")
	f.Add(archive()[:20], "x")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		has, err := archived(bytes.NewReader(data), name)
		if err != nil || has && !bytes.Contains(data, []byte(name)) {
			t.Errorf("%v, %v", has, err)
		}
	})
}
