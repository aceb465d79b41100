package sshd

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

var up = host.Unit{Load: "loaded", Active: "active", File: "enabled"}

type machine struct {
	*testing.T
	host     host.Host
	commands *hosttest.Commands
	units    *hosttest.Units
}

func newMachine(t *testing.T) *machine {
	h, c, u := hosttest.New(t)
	m := &machine{t, h, c, u}
	m.write("etc/ssh/sshd_config", "# Debian\nInclude /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n")
	m.write("etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAAed root@x\n")
	m.write("etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAArsa root@x\n")
	m.write("etc/ssh/ssh_host_dsa_key.pub", "ssh-dss AAAAdsa root@x\n")
	u.Set("ssh.service", up)
	c.Answer("sshd -t", "")
	return m
}

func (m *machine) write(name, content string) {
	m.Helper()
	hosttest.Write(m, m.host, name, content)
}

// read returns a file's content, or "none".
func (m *machine) read(name string) string {
	m.Helper()
	b, err := os.ReadFile(filepath.Join(m.host.Root, name))
	if err != nil {
		return "none"
	}
	return string(b)
}

// certifier answers "cert N of KEY", or err.
type certifier struct {
	asked   int
	renewAt time.Time
	err     error
}

func (c *certifier) CertifyHost(_ context.Context, keys []string) ([]string, time.Time, error) {
	if c.err != nil {
		return nil, time.Time{}, c.err
	}
	c.asked++
	var certs []string
	for _, k := range keys {
		certs = append(certs, "cert"+strings.Repeat("'", c.asked)+" of "+k)
	}
	return certs, c.renewAt, nil
}

func (m *machine) state(ssh *agentv1.Ssh, c desired.HostCertifier, users ...*agentv1.User) *desired.State {
	return &desired.State{
		Machine:       &agentv1.MachineComponent{Name: "zk-1", Fqdn: "zk-1.x", Address: "10.0.0.1", SshAuthorities: []string{"ssh-ed25519 AAAAca"}},
		Pool:          &agentv1.PoolComponent{Ssh: ssh, Users: users},
		HostCertifier: c,
	}
}

func (m *machine) check(r converge.Resource) string {
	m.Helper()
	d, err := r.Check(m.Context())
	if err != nil {
		m.Fatal(err)
	}
	return d.Text
}

func (m *machine) settle(r converge.Resource) {
	m.Helper()
	if m.check(r) == "" {
		m.Errorf("%s: nothing to do", r.Name())
	}
	if err := r.Apply(m.Context()); err != nil {
		m.Fatal(err)
	}
	if d := m.check(r); d != "" {
		m.Errorf("%s after: %s", r.Name(), d)
	}
}

func TestNothingIsSaidOfSsh(t *testing.T) {
	m := newMachine(t)
	if list := New(m.state(nil, nil), &m.host); len(list) > 0 {
		t.Errorf("%d resources", len(list))
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		ssh  *agentv1.Ssh
		want string
		port uint16
	}{
		{"default", &agentv1.Ssh{Certificates: true}, `PasswordAuthentication no
KbdInteractiveAuthentication no
TrustedUserCAKeys /etc/ssh/provisionr_authorities.pub
AuthorizedPrincipalsFile /etc/ssh/provisionr_principals/%u
HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub
HostCertificate /etc/ssh/ssh_host_rsa_key-cert.pub
`, 22},
		{"plain", &agentv1.Ssh{PasswordLogin: true}, "PasswordAuthentication yes\nKbdInteractiveAuthentication no\n", 22},
		{"settings", &agentv1.Ssh{Settings: map[string]string{"Port": "2222", "passwordauthentication": "yes", "MaxSessions": "3"}},
			"KbdInteractiveAuthentication no\nMaxSessions 3\nPort 2222\npasswordauthentication yes\n", 2222},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			r := New(m.state(c.ssh, nil), &m.host)[1]
			m.settle(r)
			if diff := cmp.Diff("# Managed by provisionr-agent.\n"+c.want, m.read(dropInPath)); diff != "" {
				t.Error(diff)
			}
			if !slices.Equal(m.units.Log(), []string{"reload-or-restart ssh.service"}) || !slices.Equal(m.commands.Lines(), []string{"sshd -t"}) {
				t.Errorf("units %q, ran %q", m.units.Log(), m.commands.Lines())
			}
			g := r.(converge.Guarded).Guard()
			if !slices.Equal(g.Inbound, []uint16{c.port}) || len(g.Fingerprint) != 64 {
				t.Errorf("guard %+v", g)
			}
			m.write(dropInPath, "PasswordAuthentication yes\n")
			m.settle(r)
		})
	}
}

func TestDropInsAreMadeToCount(t *testing.T) {
	m := newMachine(t)
	m.write(mainPath, "PasswordAuthentication yes\nInclude /etc/ssh/sshd_config.d/*.conf\n")
	m.settle(New(m.state(&agentv1.Ssh{}, nil), &m.host)[1])
	if got := m.read(mainPath); got != includeLine+"\nPasswordAuthentication yes\nInclude /etc/ssh/sshd_config.d/*.conf\n" {
		t.Errorf("main file %q", got)
	}
}

func TestConfigThatSshdRefusesIsTakenBack(t *testing.T) {
	m := newMachine(t)
	m.write(dropInPath, "# as it was\n")
	m.commands.Fail("sshd -t", 255, "Bad configuration option: Nonsense")
	r := New(m.state(&agentv1.Ssh{Settings: map[string]string{"Nonsense": "1"}}, nil), &m.host)[1]
	if err := r.Apply(t.Context()); !strings.Contains(err.Error(), "Bad configuration option") {
		t.Errorf("got %v", err)
	}
	if got := m.read(dropInPath); got != "# as it was\n" {
		t.Errorf("drop-in %q", got)
	}
	if len(m.units.Log()) > 0 {
		t.Errorf("units %q", m.units.Log())
	}
	for _, bad := range []map[string]string{{"Match": "User x"}, {"Port": "0"}} {
		if _, err := New(m.state(&agentv1.Ssh{Settings: bad}, nil), &m.host)[1].Check(t.Context()); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestUndo(t *testing.T) {
	m := newMachine(t)
	r, ok := New(m.state(&agentv1.Ssh{}, nil), &m.host)[1].(converge.Guarded)
	if !ok {
		t.Fatal("not guarded")
	}
	undo, err := r.Undo(t.Context())
	if err != nil || len(undo.Files) != 2 || !undo.Files[0].Absent || string(undo.Files[1].Content) != m.read(mainPath) || undo.Files[1].Mode != 0o644 {
		t.Errorf("undo %+v, %v", undo, err)
	}
	if diff := cmp.Diff([][]string{{"systemctl", "reload-or-restart", "ssh.service"}}, undo.Commands); diff != "" {
		t.Error(diff)
	}
}

func TestCertificates(t *testing.T) {
	m := newMachine(t)
	synctest.Test(t, func(*testing.T) {
		c := &certifier{renewAt: time.Now().Add(time.Hour)}
		s := m.state(&agentv1.Ssh{Certificates: true}, c, &agentv1.User{Name: "ada", Admin: true}, &agentv1.User{Name: "bob"}, &agentv1.User{Name: "eve", Absent: true})
		m.write("etc/ssh/provisionr_principals/eve", "eve\n")
		m.settle(New(s, &m.host)[0])
		for name, want := range map[string]string{
			"etc/ssh/ssh_host_ed25519_key-cert.pub": "cert' of ssh-ed25519 AAAAed\n", "etc/ssh/ssh_host_rsa_key-cert.pub": "cert' of ssh-rsa AAAArsa\n",
			"etc/ssh/ssh_host_dsa_key-cert.pub": "none", "etc/ssh/provisionr_authorities.pub": "ssh-ed25519 AAAAca\n",
			"etc/ssh/provisionr_principals/ada": "ada\nrole:admin\n", "etc/ssh/provisionr_principals/bob": "bob\nrole:admin\nrole:operator\n",
			"etc/ssh/provisionr_principals/eve": "none",
		} {
			if got := m.read(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if !slices.Equal(m.units.Log(), []string{"reload-or-restart ssh.service"}) || len(m.commands.Lines()) > 0 {
			t.Errorf("units %q, ran %q", m.units.Log(), m.commands.Lines())
		}

		// A changed file is repaired from what is remembered, also after a restart of the agent without a server.
		m.write("etc/ssh/ssh_host_rsa_key-cert.pub", "evil\n")
		s.HostCertifier = nil
		m.settle(New(s, &m.host)[0])
		s.HostCertifier = c

		time.Sleep(2 * time.Hour)
		c.err = errs.New(errs.Unavailable, "not connected")
		r := New(s, &m.host)[0]
		if d := m.check(r); d != "host certificates are due for renewal" {
			t.Errorf("due: %q", d)
		}
		if err := r.Apply(t.Context()); !errs.Is(err, errs.Unavailable) {
			t.Errorf("without a server: %v", err)
		}
		if got := m.read("etc/ssh/ssh_host_rsa_key-cert.pub"); got != "cert' of ssh-rsa AAAArsa\n" {
			t.Errorf("the old certificate: %q", got)
		}
		c.err, c.renewAt = nil, time.Now().Add(time.Hour)
		m.settle(r)
		if got := m.read("etc/ssh/ssh_host_rsa_key-cert.pub"); got != "cert'' of ssh-rsa AAAArsa\n" {
			t.Errorf("renewed: %q", got)
		}

		// Another name, and another key.
		s.Machine.Address = "10.0.0.2"
		m.settle(New(s, &m.host)[0])
		m.write("etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAAnew root@x\n")
		m.settle(New(s, &m.host)[0])
		if c.asked != 4 {
			t.Errorf("asked %d times", c.asked)
		}

		s.Pool.Ssh.Certificates = false
		m.settle(New(s, &m.host)[0])
		for _, name := range []string{"etc/ssh/ssh_host_rsa_key-cert.pub", "etc/ssh/provisionr_authorities.pub", "etc/ssh/provisionr_principals/ada"} {
			if got := m.read(name); got != "none" {
				t.Errorf("%s: %q", name, got)
			}
		}
	})
}

func TestAnswersThatMakeNoSense(t *testing.T) {
	m := newMachine(t)
	for _, c := range []desired.HostCertifier{answers{}, answers{"a\nb", "c"}, answers{"", "c"}} {
		if err := New(m.state(&agentv1.Ssh{Certificates: true}, c), &m.host)[0].Apply(t.Context()); !errs.Is(err, errs.Internal) {
			t.Errorf("%q: %v", c, err)
		}
	}
}

type answers []string

func (a answers) CertifyHost(context.Context, []string) ([]string, time.Time, error) {
	return a, time.Now(), nil
}
