package user_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/user"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// groupNumber is that of every group that is made: the tests' own, so that anybody may run them.
var groupNumber = os.Getgid()

// machine keeps passwd and group as the scripted useradd and its like would.
type machine struct {
	*testing.T
	host     host.Host
	commands *hosttest.Commands
}

func newMachine(t *testing.T) *machine {
	h, c, _ := hosttest.New(t)
	m := &machine{t, h, c}
	m.write("etc/passwd", "root:x:0:0::/root:/bin/bash\nbob:x:1001:1001::/home/bob:/bin/sh\n")
	m.write("etc/group", "sudo:x:27:\nbob:x:1001:\n")
	m.write("home/bob/.profile", "")
	c.On("groupadd", func(call hosttest.Call) (host.Result, error) {
		m.write("etc/group", m.read("etc/group")+strings.Fields(call.Line)[1]+fmt.Sprintf(":x:%d:\n", groupNumber))
		return host.Result{}, nil
	})
	c.On("useradd", func(call hosttest.Call) (host.Result, error) {
		f := strings.Fields(call.Line)
		name := f[len(f)-1]
		home, gid := "/home/"+name, os.Getgid()
		if i := slices.Index(f, "--home-dir"); i > 0 {
			home = f[i+1]
		}
		if slices.Contains(f, "--gid") {
			gid = groupNumber
		}
		m.write("etc/passwd", m.read("etc/passwd")+fmt.Sprintf("%s:x:%d:%d::%s:%s\n", name, os.Getuid(), gid, home, f[3]))
		if f[4] == "--groups" {
			m.write("etc/group", strings.ReplaceAll(m.read("etc/group"), fmt.Sprintf("docker:x:%d:", groupNumber), fmt.Sprintf("docker:x:%d:%s", groupNumber, name)))
		}
		if f[1] == "--no-create-home" {
			return host.Result{}, nil
		}
		return host.Result{}, os.MkdirAll(filepath.Join(m.host.Root, home), 0o755)
	})
	c.On("usermod", func(hosttest.Call) (host.Result, error) {
		m.write("etc/passwd", strings.ReplaceAll(m.read("etc/passwd"), "/bin/sh", "/bin/zsh"))
		m.write("etc/group", strings.ReplaceAll(m.read("etc/group"), "sudo:x:27:", "sudo:x:27:bob"))
		return host.Result{}, nil
	})
	c.On("userdel", func(hosttest.Call) (host.Result, error) {
		m.write("etc/passwd", "root:x:0:0::/root:/bin/bash\n")
		return host.Result{}, nil
	})
	c.Answer("visudo", "")
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

func (m *machine) resources(users ...*agentv1.User) []converge.Resource {
	return user.New(&desired.State{Pool: &agentv1.PoolComponent{Users: users}}, &m.host)
}

func (m *machine) settle(r converge.Resource) string {
	m.Helper()
	before, err := r.Check(m.Context())
	if err != nil || before.Empty() {
		m.Errorf("%s before: %q, %v", r.Name(), before.Text, err)
	}
	if err := r.Apply(m.Context()); err != nil {
		m.Fatal(err)
	}
	if d, err := r.Check(m.Context()); err != nil || !d.Empty() {
		m.Errorf("%s after: %q, %v", r.Name(), d.Text, err)
	}
	return before.Text
}

func TestNewAdmin(t *testing.T) {
	m := newMachine(t)
	ada := &agentv1.User{Name: "ada", Admin: true, Groups: []string{"docker"}, SshKeys: []string{"ssh-ed25519 AAAA ada@x\n", "ssh-ed25519 BBBB"}}
	m.settle(m.resources(ada)[0])
	want := []string{"groupadd docker", "useradd --create-home --shell /bin/bash --groups docker --user-group ada", "visudo -c -q -f -"}
	if diff := cmp.Diff(want, m.commands.Lines()); diff != "" {
		t.Error(diff)
	}
	if got := m.read("home/ada/.ssh/authorized_keys"); got != "ssh-ed25519 AAAA ada@x\nssh-ed25519 BBBB\n" {
		t.Errorf("keys %q", got)
	}
	if info, err := os.Stat(filepath.Join(m.host.Root, "home/ada/.ssh")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf(".ssh: %v, %v", info.Mode(), err)
	}
	if got := m.read("etc/sudoers.d/provisionr-ada"); got != "ada ALL=(ALL:ALL) NOPASSWD: ALL\n" {
		t.Errorf("sudoers %q", got)
	}

	// A foreign key is drift; a key that is no longer wanted goes.
	m.write("home/ada/.ssh/authorized_keys", "ssh-ed25519 EVIL\n")
	if d := m.settle(m.resources(ada)[0]); !strings.Contains(d, "-ssh-ed25519 EVIL") || !strings.Contains(d, "+ssh-ed25519 BBBB") {
		t.Errorf("the event says %q", d)
	}
	ada.SshKeys, ada.Admin = nil, false
	m.settle(m.resources(ada)[0])
	for _, gone := range []string{"home/ada/.ssh/authorized_keys", "etc/sudoers.d/provisionr-ada"} {
		if _, err := os.Stat(filepath.Join(m.host.Root, gone)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", gone, err)
		}
	}
}

func TestChange(t *testing.T) {
	m := newMachine(t)
	bob := m.resources(&agentv1.User{Name: "bob", Shell: "/bin/zsh", Groups: []string{"sudo"}})[0]
	if err := bob.Apply(t.Context()); !errs.Is(err, errs.NotFound) || len(m.commands.Lines()) > 0 {
		t.Errorf("a shell that does not exist: %v", err)
	}
	m.write("bin/zsh", "")
	diff := m.settle(bob)
	if diff != "shell is /bin/sh, wanted /bin/zsh\nnot in groups sudo" {
		t.Errorf("diff %q", diff)
	}
	if got := m.commands.Lines(); len(got) != 1 || got[0] != "usermod --shell /bin/zsh --append --groups sudo bob" {
		t.Errorf("ran %q", got)
	}
}

func TestAbsent(t *testing.T) {
	m := newMachine(t)
	m.write("etc/sudoers.d/provisionr-bob", "x")
	m.settle(m.resources(&agentv1.User{Name: "bob", Absent: true, Admin: true})[0])
	if got := m.commands.Lines(); len(got) != 1 || got[0] != "userdel --force bob" {
		t.Errorf("ran %q", got)
	}
	if _, err := os.Stat(filepath.Join(m.host.Root, "etc/sudoers.d/provisionr-bob")); !os.IsNotExist(err) {
		t.Errorf("the right to sudo: %v", err)
	}
	if err := m.resources(&agentv1.User{Name: "root", Absent: true})[0].Apply(t.Context()); err == nil {
		t.Error("root was removed")
	}
}

func TestStrays(t *testing.T) {
	m := newMachine(t)
	m.write("etc/sudoers.d/provisionr-old", "x")
	m.write("etc/sudoers.d/90-cloud-init-users", "x")
	list := m.resources(&agentv1.User{Name: "ada"})
	m.settle(list[len(list)-2])
	m.read("etc/sudoers.d/90-cloud-init-users")
}

func TestMembershipsThatLeft(t *testing.T) {
	m := newMachine(t)
	m.write("etc/group", "sudo:x:27:\nadm:x:4:bob\nbob:x:1001:\n")
	m.commands.On("gpasswd", func(hosttest.Call) (host.Result, error) {
		m.write("etc/group", strings.ReplaceAll(m.read("etc/group"), "sudo:x:27:bob", "sudo:x:27:"))
		return host.Result{}, nil
	})
	m.settle(m.resources(&agentv1.User{Name: "bob", Groups: []string{"sudo", "adm"}})[0])
	m.commands.Reset()
	for _, users := range [][]*agentv1.User{{{Name: "bob"}}, nil} {
		// Put into adm by somebody else, into sudo by us.
		m.write("etc/group", "sudo:x:27:bob\nadm:x:4:bob\nbob:x:1001:\n")
		m.write("var/lib/provisionr-agent/memberships.json", `{"bob":["sudo"]}`)
		list := m.resources(users...)
		if got := m.settle(list[len(list)-1]); got != "account bob is in groups that are not listed: sudo" {
			t.Errorf("diff %q", got)
		}
	}
	if got := strings.Join(m.commands.Lines(), "; "); got != "gpasswd --delete bob sudo; gpasswd --delete bob sudo" {
		t.Errorf("ran %q", got)
	}
	list := m.resources(&agentv1.User{Name: "bob", Groups: []string{"sudo"}})
	m.write("etc/group", "sudo:x:27:bob\nadm:x:4:bob\n")
	if d, err := list[len(list)-1].Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("listed again: %q, %v", d.Text, err)
	}
}

func TestAGroupThatIsAnothersStays(t *testing.T) {
	m := newMachine(t)
	m.write("etc/passwd", m.read("etc/passwd")+"eve:x:1002:1001::/home/eve:/bin/sh\n")
	m.settle(m.resources(&agentv1.User{Name: "bob", Absent: true})[0])
	if got := m.commands.Lines(); len(got) != 1 || got[0] != "userdel bob" {
		t.Errorf("ran %q", got)
	}
}

func TestHomeComesAfterItsFileSystem(t *testing.T) {
	h, _, _ := hosttest.New(t)
	r := user.New(&desired.State{Pool: &agentv1.PoolComponent{
		Users:       []*agentv1.User{{Name: "ada"}, {Name: "db", Home: "/data"}},
		Filesystems: []*agentv1.Filesystem{{Path: "/home"}, {Path: "/data"}},
	}}, &h)
	for i, want := range []string{"filesystem//home", "filesystem//data"} {
		if after := r[i].(converge.Ordered).After(); !slices.Contains(after, want) || len(after) != 2 {
			t.Errorf("%s after %v", r[i].Name(), after)
		}
	}
}

func TestSudoersThatVisudoRefuses(t *testing.T) {
	m := newMachine(t)
	m.commands.Fail("visudo", 1, "syntax error")
	r := m.resources(&agentv1.User{Name: "ada", Admin: true})[0]
	if err := r.Apply(t.Context()); err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(m.host.Root, "etc/sudoers.d/provisionr-ada")); !os.IsNotExist(err) {
		t.Errorf("a file that visudo refuses is in place: %v", err)
	}
}

func TestKeysAreNotWrittenThroughALink(t *testing.T) {
	m := newMachine(t)
	m.write("etc/passwd", fmt.Sprintf("bob:x:%d:%d::/home/bob:/bin/sh\n", os.Getuid(), os.Getgid()))
	m.write("secret/keep", "")
	m.write("home/bob/x", "")
	if err := os.Symlink("../../secret", filepath.Join(m.host.Root, "home/bob/.ssh")); err != nil {
		t.Fatal(err)
	}
	r := m.resources(&agentv1.User{Name: "bob", SshKeys: []string{"ssh-ed25519 AAAA"}})[0]
	if err := r.Apply(t.Context()); err == nil {
		t.Error("a link was followed")
	}
	if _, err := os.Stat(filepath.Join(m.host.Root, "secret/authorized_keys")); !os.IsNotExist(err) {
		t.Errorf("keys beyond the link: %v", err)
	}
}
