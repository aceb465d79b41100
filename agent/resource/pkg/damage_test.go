package pkg

import (
	"crypto/md5"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
)

// TestPowerCutJournal shows what a journal of an earlier boot has looked at, and that one of this boot is merely ended.
func TestPowerCutJournal(t *testing.T) {
	for _, c := range []struct {
		name, boot, want string
	}{
		{"another boot", "before", "install emptied zeroed"},
		{"this boot", "now", ""},
	} {
		m := newMachine(t)
		m.write(bootIDPath, "now\n")
		status := statusFile
		for name, content := range map[string]string{"right": "content", "zeroed": "\x00\x00\x00", "emptied": "content", "long-ago": ""} {
			m.write("/usr/bin/"+name, content)
			m.write("/etc/"+name+".conf", map[bool]string{true: "", false: "x"}[name == "emptied"])
			m.write(infoDir+"/"+name+".list", "/.\n/usr/bin/"+name+"\n")
			m.write(infoDir+"/"+name+".md5sums", fmt.Sprintf("%x  usr/bin/%s\n", md5.Sum([]byte("content")), name))
			status += "\nPackage: " + name + "\nStatus: install ok installed\nVersion: 1\nConffiles:\n /etc/" + name + ".conf 0123456789abcdef0123456789abcdef\n"
		}
		m.write(statusPath, status)
		began := time.Now().Add(2 * clockDoubt) // long-ago, which the journal does not name, is older than that
		m.write(journalPath, fmt.Sprintf(`{"boot":%q,"began":%q,"packages":["right","zeroed","emptied"]}`, c.boot, began.Format(time.RFC3339)))
		m.commands.Answer("dpkg", "")
		m.commands.On("apt-get", func(hosttest.Call) (host.Result, error) { return host.Result{}, nil })
		r := m.resource("nano")
		if d, err := r.Check(t.Context()); err != nil || d.Text != "a package transaction was interrupted" {
			t.Errorf("%s: before: %q, %v", c.name, d.Text, err)
		}
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
			t.Errorf("%s: after: %q, %v", c.name, d.Text, err)
		}
		var installs []string
		for _, line := range m.commands.Lines() {
			if _, rest, ok := strings.Cut(line, " install "); ok {
				installs = append(installs, "install "+rest)
			}
		}
		if diff := cmp.Diff(c.want, strings.Join(installs, "; ")); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestWithHolds(t *testing.T) {
	for _, c := range []struct {
		before, after string
		held          []string
	}{
		{"[main]\ngpgcheck=1\n", "[main]\n# Held by provisionr-agent: a b\nexcludepkgs=a b\ngpgcheck=1\n", []string{"a", "b"}},
		{"", "[main]\n# Held by provisionr-agent: a\nexcludepkgs=a\n", []string{"a"}},
		{"[main]\nexcludepkgs=x, y\n", "[main]\n# Held by provisionr-agent: a\nexcludepkgs=x y a\n#provisionr# excludepkgs=x, y\n", []string{"a"}},
	} {
		got := withHolds(c.before, c.held)
		if got != c.after {
			t.Errorf("%q", got)
		}
		if again := withHolds(got, c.held); again != got {
			t.Errorf("again: %q", again)
		}
		if back := withHolds(got, nil); back != c.before && back != "[main]\n" {
			t.Errorf("back: %q", back)
		}
	}
}

func TestRPMVersions(t *testing.T) {
	d := &dnf{}
	for _, c := range []struct {
		want, have string
		same       bool
	}{
		{"1.0-1.fc42", "1.0-1.fc42", true}, {"1.0", "1.0-1.fc42", true}, {"1.0-2.fc42", "1.0-1.fc42", false}, {"0:1.0-1", "1.0-1", true},
		{"1:1.0", "1:1.0-1", true}, {"1.0", "1:1.0-1", false}, {"1:1.0", "1.0-1", false}, {"1.0", "", false},
	} {
		if got := d.matches(c.want, c.have); got != c.same {
			t.Errorf("%s and %s: %v", c.want, c.have, got)
		}
	}
	in := parseRPM([]byte("bash\t0:5.2-1\tbash /bin/sh libx()(64bit) \nkernel\t0:6.1-1\tkernel \nkernel\t0:6.10-1\tkernel \ngpg-pubkey\t0:1-1\t\n"))
	if diff := cmp.Diff(map[string]string{"bash": "5.2-1", "kernel": "6.10-1"}, in.versions); diff != "" || in.provided["libx()(64bit)"] || !in.provided["bash"] {
		t.Error(diff, in.provided)
	}
}
