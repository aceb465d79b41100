//go:build machine

package pkg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const spec = `Name: %s
Version: %s
Release: 1
Summary: A package of a test
License: MIT
BuildArch: noarch
%%description
A package of a test.
%%install
mkdir -p %%{buildroot}/opt/%s
echo %s > %%{buildroot}/opt/%s/version
%%files
/opt/%s
`

// archive is a signed repository of dnf in a directory.
type archive struct {
	*testing.T
	dir, key string
	env      []string
}

func newArchive(t *testing.T) *archive {
	dir := t.TempDir()
	a := &archive{t, dir, filepath.Join(dir, "key.asc"), nil}
	home := filepath.Join(dir, "gnupg")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", home)
	t.Setenv("HOME", dir) // where Debian's rpm keeps a database
	run(t, "gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-gen-key", "test@example.org", "rsa2048", "sign", "never")
	t.Cleanup(func() { run(t, "gpgconf", "--homedir", home, "--kill", "all") })
	run(t, "gpg", "--batch", "--armor", "--output", a.key, "--export", "test@example.org")
	return a
}

// build makes, signs and publishes versions of packages.
func (a *archive) build(versions ...[2]string) {
	a.Helper()
	repo := filepath.Join(a.dir, "repo")
	if err := os.MkdirAll(repo, 0o755); err != nil {
		a.Fatal(err)
	}
	for _, v := range versions {
		name, version := v[0], v[1]
		file := filepath.Join(a.dir, name+".spec")
		if err := os.WriteFile(file, fmt.Appendf(nil, spec, name, version, name, version, name, name), 0o644); err != nil {
			a.Fatal(err)
		}
		run(a.T, "rpmbuild", "-bb", "--define", "_topdir "+a.dir+"/build", "--define", "_rpmdir "+repo, file)
		run(a.T, "rpmsign", "--define", "_gpg_name test@example.org", "--define", "__gpg /usr/bin/gpg", "--addsign", fmt.Sprintf("%s/noarch/%s-%s-1.noarch.rpm", repo, name, version))
	}
	run(a.T, "createrepo_c", "-q", repo)
	if err := os.Remove(repo + "/repodata/repomd.xml.asc"); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.Fatal(err)
	}
	run(a.T, "gpg", "--batch", "--detach-sign", "--armor", repo+"/repodata/repomd.xml")
}

// root returns an installroot that knows the repository by a key.
func (a *archive) root(key string) *host.Host {
	a.Helper()
	root := a.TempDir()
	for name, content := range map[string]string{
		"/etc/dnf/dnf.conf":         "[main]\nexclude=never-this\n",
		"/etc/yum.repos.d/own.repo": "[own]\nname=own\nbaseurl=file://" + a.dir + "/repo\ngpgcheck=1\nrepo_gpgcheck=1\nmetadata_expire=0\ngpgkey=file://" + key + "\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(root+name), 0o755), os.WriteFile(root+name, []byte(content), 0o644)); err != nil {
			a.Fatal(err)
		}
	}
	// Debian's rpm keeps its database in the home directory.
	if err := errors.Join(os.MkdirAll(root+"/root/.rpmdb", 0o755), os.MkdirAll(root+"/var/lib", 0o755), os.Symlink("../../root/.rpmdb", root+"/var/lib/rpm")); err != nil {
		a.Fatal(err)
	}
	return &host.Host{Root: root, Commands: host.Processes{}}
}

func fedora(packages ...*agentv1.Package) *desired.State {
	return &desired.State{
		Machine: &agentv1.MachineComponent{Os: &agentv1.OperatingSystem{Distribution: "fedora", Release: "42"}},
		Pool: &agentv1.PoolComponent{
			Repositories: []*agentv1.Repository{{Name: "own", Uris: []string{"http://unused.example"}}},
			Packages:     append(packages, &agentv1.Package{Name: "chrony", Absent: true}),
		},
	}
}

// TestDnf converges an installroot with the real dnf against a signed repository: install, version, hold, repository, absent.
func TestDnf(t *testing.T) {
	a := newArchive(t)
	a.build([2]string{"one", "1.0"}, [2]string{"two", "1.0"})
	h := a.root(a.key)
	version := func(name string) string {
		content, err := os.ReadFile(h.Root + "/opt/" + name + "/version")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(content))
	}
	expect := func(step, one, two string) {
		t.Helper()
		if version("one") != one || version("two") != two {
			t.Errorf("%s: one %q, two %q", step, version("one"), version("two"))
		}
	}
	apply(t, h, fedora(&agentv1.Package{Name: "one", Hold: true}, &agentv1.Package{Name: "two", Repository: "own"}))
	expect("installed", "1.0", "1.0")

	a.build([2]string{"one", "2.0"}, [2]string{"two", "2.0"})
	d := &dnf{host: h, limits: defaultLimits}
	if err := d.run(t.Context(), "upgrade", d.args("--refresh", "upgrade")); err != nil {
		t.Fatal(err)
	}
	expect("upgraded by hand, one is held", "1.0", "2.0")

	apply(t, h, fedora(&agentv1.Package{Name: "one", Version: "2.0-1", Hold: true}, &agentv1.Package{Name: "two", Version: "1.0-1", Repository: "own"}))
	expect("versions up and down", "2.0", "1.0")
	conf, err := os.ReadFile(h.Root + dnfConf)
	if err != nil || !strings.Contains(string(conf), "excludepkgs=never-this one\n") {
		t.Errorf("%s %v", conf, err)
	}

	apply(t, h, fedora(&agentv1.Package{Name: "one"}, &agentv1.Package{Name: "two", Absent: true}))
	expect("released and removed", "2.0", "")
	if conf, err := os.ReadFile(h.Root + dnfConf); err != nil || string(conf) != "[main]\nexclude=never-this\n" {
		t.Errorf("%s %v", conf, err)
	}

	err = New(fedora(&agentv1.Package{Name: "three"}), h)[0].Apply(t.Context())
	if !errs.Is(err, errs.NotFound) {
		t.Errorf("kind %s: %v", errs.KindOf(err), err)
	}
}

// TestDnfRefusesOtherKey shows that a repository that is signed with another key than the one named is refused.
func TestDnfRefusesOtherKey(t *testing.T) {
	other := newArchive(t)
	a := newArchive(t)
	a.build([2]string{"one", "1.0"})
	h := a.root(other.key)
	err := New(fedora(&agentv1.Package{Name: "one"}), h)[0].Apply(t.Context())
	if !errs.Is(err, errs.Denied) {
		t.Errorf("kind %s: %v", errs.KindOf(err), err)
	}
	if _, err := os.Stat(h.Root + "/opt/one"); err == nil {
		t.Error("it was installed")
	}
}
