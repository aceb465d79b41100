package user_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/resource/user"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func TestSystemAccount(t *testing.T) {
	m := newMachine(t)
	m.settle(m.resources(&agentv1.User{Name: "kafka", System: true, Uid: uint32(os.Getuid()), Home: "/var/lib/kafka", Group: "hadoop"})[0])
	want := "useradd --no-create-home --shell /usr/sbin/nologin --gid hadoop"
	if lines := m.commands.Lines(); len(lines) != 2 || lines[0] != "groupadd hadoop" || !strings.HasPrefix(lines[1], want) || !strings.HasSuffix(lines[1], "--system --home-dir /var/lib/kafka kafka") {
		t.Errorf("ran %q", lines)
	}
	home := filepath.Join(m.host.Root, "var/lib/kafka")
	if st, err := os.Stat(home); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("home: %v, %v", st, err)
	}
	// Without keys or a home of its own an account of the system needs no directory.
	m.settle(m.resources(&agentv1.User{Name: "plain", System: true})[0])
	if _, err := os.Stat(filepath.Join(m.host.Root, "home/plain")); !os.IsNotExist(err) {
		t.Errorf("home of plain: %v", err)
	}
}

func TestChangeOfHomeAndGroup(t *testing.T) {
	m := newMachine(t)
	d, err := m.resources(&agentv1.User{Name: "bob", Home: "/srv/bob", Group: "sudo"})[0].Check(t.Context())
	if err != nil || d.Text != "home is /home/bob, wanted /srv/bob\nfirst group has number 1001, wanted sudo" {
		t.Errorf("diff %q, %v", d.Text, err)
	}
}

func TestNumberOfAnAccountIsNotChanged(t *testing.T) {
	m := newMachine(t)
	r := m.resources(&agentv1.User{Name: "bob", Uid: 4242})[0]
	if _, err := r.Check(t.Context()); !errs.Is(err, errs.Conflict) || errs.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

func TestHomeThatIsMissingIsDrift(t *testing.T) {
	m := newMachine(t)
	if err := os.RemoveAll(filepath.Join(m.host.Root, "home/bob")); err != nil {
		t.Fatal(err)
	}
	d, err := m.resources(&agentv1.User{Name: "bob"})[0].Check(t.Context())
	if err != nil || d.Text != "home directory /home/bob is missing" {
		t.Errorf("diff %q, %v", d.Text, err)
	}
}

func TestSudoCommands(t *testing.T) {
	for _, c := range []struct{ command, want string }{
		{"/usr/bin/systemctl restart kafka", "/usr/bin/systemctl restart kafka"},
		{"/usr/bin/id", "/usr/bin/id"},
		{`/usr/bin/id ""`, `/usr/bin/id ""`},
		{"/bin/x  a=b,c:d #e", `/bin/x a\=b\,c\:d \#e`},
		{"/bin/x * [a] ? !y", `/bin/x \* \[a\] \? \!y`},
		{"/bin/x ^.*$", `/bin/x \^.\*$`},
		{"/bin/a,b=c", `/bin/a\,b\=c`},
		{"/usr/bin/*", ""},
		{"/usr/bin/", ""},
		{"systemctl", ""},
		{`/bin/x a\ b`, ""},
		{"/bin/x\nroot ALL=ALL", ""},
	} {
		m := newMachine(t)
		r := m.resources(&agentv1.User{Name: "bob", Sudo: []string{c.command}})[0]
		err := r.Apply(t.Context())
		if c.want == "" {
			if !errs.Is(err, errs.Invalid) || len(m.commands.Lines()) > 0 {
				t.Errorf("%q: %v", c.command, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := m.read("etc/sudoers.d/provisionr-bob"); got != "bob ALL=(root) NOPASSWD: "+c.want+"\n" {
			t.Errorf("%q became %q", c.command, got)
		}
		if calls := m.commands.Calls(); calls[len(calls)-1].Stdin != m.read("etc/sudoers.d/provisionr-bob") {
			t.Error("visudo saw something else")
		}
		// An edit is drift.
		m.write("etc/sudoers.d/provisionr-bob", "bob ALL=(ALL) NOPASSWD: ALL\n")
		if d, err := r.Check(t.Context()); err != nil || d.Empty() {
			t.Errorf("%q: the edit was not found: %v", c.command, err)
		}
	}
}

func TestOrderAndTriggers(t *testing.T) {
	m := newMachine(t)
	r := user.New(&desired.State{Pool: &agentv1.PoolComponent{
		Users:  []*agentv1.User{{Name: "ada", SshKeys: []string{"ssh-ed25519 AAAA"}}},
		Groups: []*agentv1.Group{{Name: "hdfs"}, {Name: "old", Absent: true}},
	}}, &m.host)[0]
	if ordered, ok := r.(converge.Ordered); !ok || !slices.Equal(ordered.After(), []string{"package", "group/hdfs"}) {
		t.Error("order")
	}
	triggered, ok := r.(converge.Triggered)
	if !ok || !slices.Contains(triggered.Triggers(), converge.Trigger{Kind: converge.OnFile, Name: "/home/ada/.ssh/authorized_keys"}) {
		t.Error("triggers")
	}
}
