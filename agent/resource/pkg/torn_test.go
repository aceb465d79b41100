package pkg

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
)

// TestTorn tears dpkg's database in every way that a power cut may, in mid-transaction, and shows that it is noticed, that the
// database from before is put back, and that the packages are then added again.
func TestTorn(t *testing.T) {
	const added = "\nPackage: vim\nStatus: install ok installed\nVersion: 1\n"
	before := map[string]string{
		statusPath: statusFile, dpkgDir + "/diversions": "/a\n/a.real\nx\n", triggersDir + "/File": "/usr/lib libc\n", choicesDir + "/editor": "auto\n/usr/bin/editor\n",
	}
	after := map[string]string{
		statusPath: statusFile + added, triggersDir + "/File": "/usr/lib libc\n/usr/share vim\n", triggersDir + "/of-vim": "vim\n", pendingPath: "", updatesPath + "/0001": "Package: vim\nStatus: install ok installed\n",
		choicesDir + "/vi": "auto\n/usr/bin/vi\n", infoDir + "/vim.list": "/.\n/usr/bin/vim\n", infoDir + "/vim.postinst": "#!/bin/sh\n", infoDir + "/vim:amd64.md5sums": "",
		infoDir + "/vim.tiny.list": "/.\n", infoDir + "/vim-runtime.list": "/.\n",
	}
	for _, c := range []struct {
		name, file, content string
		torn                bool
	}{
		{"whole", "", "", false},
		{"status emptied", statusPath, "", true},
		{"status zeroed", statusPath, strings.Repeat("\x00", 500), true},
		{"status cut in a line", statusPath, statusFile[:100], true},
		{"status cut after a package", statusPath, strings.SplitAfter(statusFile, "\n\n")[0], true},
		{"update emptied", updatesPath + "/0001", "", true},
		{"update zeroed", updatesPath + "/0001", "\x00\x00", true},
		{"files emptied", infoDir + "/vim.list", "", true},
		{"files cut", infoDir + "/vim.list", "/.\n/usr/b", true},
		{"files gone", infoDir + "/vim.list", "gone", true},
		{"script zeroed", infoDir + "/vim.postinst", "\x00\x00", true},
		{"diversions emptied", dpkgDir + "/diversions", "", true},
		{"triggers gone", triggersDir + "/File", "gone", true},
		{"alternative zeroed", choicesDir + "/editor", "\x00", true},
		{"pending triggers emptied", pendingPath, "", false},
		{"another package's", infoDir + "/vim-runtime.list", "", false},
	} {
		m := newMachine(t)
		for name, content := range before {
			m.write(name, content)
		}
		a := m.resource().manager.(*apt)
		m.write(bootIDPath, "before\n")
		if err := a.openJournal([]target{{name: "vim"}}, []*stanza{{name: "vim"}}, a.saveDatabase()); err != nil {
			t.Fatal(err)
		}
		m.write(bootIDPath, "now\n")
		for name, content := range after {
			m.write(name, content)
		}
		switch c.content {
		case "gone":
			if err := os.Remove(m.path(c.file)); err != nil {
				t.Fatal(err)
			}
		default:
			if c.file != "" {
				m.write(c.file, c.content)
			}
		}
		j, err := a.readJournal()
		if err != nil {
			t.Fatal(err)
		}
		if torn, err := a.torn(j); err != nil || torn != c.torn {
			t.Errorf("%s: torn %v, %v", c.name, torn, err)
		}
		m.commands.On("dpkg", func(hosttest.Call) (host.Result, error) {
			if !c.torn {
				return host.Result{}, os.RemoveAll(m.path(updatesPath))
			}
			for name, content := range before {
				if diff := cmp.Diff(content, m.read(name)); diff != "" {
					t.Errorf("%s: %s: %s", c.name, name, diff)
				}
			}
			for name := range after {
				_, err := os.Stat(m.path(name))
				_, was := before[name]
				if stays := was || name == choicesDir+"/vi" || strings.Contains(name, "vim.tiny") || strings.Contains(name, "-runtime"); (err == nil) != stays {
					t.Errorf("%s: %s: %v", c.name, name, err)
				}
			}
			return host.Result{}, nil
		})
		m.commands.On("apt-get", func(hosttest.Call) (host.Result, error) {
			m.write(infoDir+"/vim.list", "/.\n")
			m.write(statusPath, statusFile+added)
			return host.Result{}, nil
		})
		if err := m.resource("vim").Apply(t.Context()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := strings.Join(m.verbs(), "; "); got != "--configure -a; install vim" {
			t.Errorf("%s: ran %q", c.name, got)
		}
		if d, err := m.resource("vim").Check(t.Context()); err != nil || !d.Empty() {
			t.Errorf("%s: after: %q, %v", c.name, d.Text, err)
		}
	}
}

// TestNotUnderstood shows that what dpkg cannot make sense of counts as torn, and that a lock or a timeout does not.
func TestNotUnderstood(t *testing.T) {
	for stderr, back := range map[string]bool{
		"dpkg: error: parsing file '/var/lib/dpkg/triggers/File'":                  true,
		"dpkg: error: dpkg database lock was locked by another process with pid 7": false,
	} {
		m := newMachine(t)
		a := m.resource().manager.(*apt)
		m.write(bootIDPath, "before\n")
		if err := a.openJournal([]target{{name: "vim"}}, nil, a.saveDatabase()); err != nil {
			t.Fatal(err)
		}
		m.write(bootIDPath, "now\n")
		m.write(statusPath, statusFile+"\nPackage: vim\nStatus: install ok unpacked\nVersion: 1\n")
		m.write(infoDir+"/vim.list", "/.\n")
		m.commands.On("dpkg", func(hosttest.Call) (host.Result, error) {
			if strings.Contains(m.read(statusPath), "vim") {
				return host.Result{Exit: 2, Stderr: []byte(stderr)}, nil
			}
			return host.Result{}, nil
		})
		err := m.resource("vim").Apply(t.Context())
		if got := strings.Contains(m.read(statusPath), "Package: vim\nStatus: install ok installed"); got != back || (err == nil) != back {
			t.Errorf("%s: %v, %v", stderr, got, err)
		}
	}
}

// TestRefused shows that apt-get, to which what dpkg refused is left, runs synced and under a journal that has no way back.
func TestRefused(t *testing.T) {
	m := newMachine(t)
	m.listed(true, "vim\n")
	r := m.resource("vim")
	m.commands.Fail("dpkg", 1, "dpkg: error processing archive")
	ran := false
	m.commands.On("apt-get", func(call hosttest.Call) (host.Result, error) {
		j, err := r.manager.(*apt).readJournal()
		if ran = true; err != nil || j == nil || len(j.Before) > 0 || call.Unsynced {
			t.Errorf("journal %v, unsynced %v, %v", j, call.Unsynced, err)
		}
		return host.Result{}, nil
	})
	if err := r.Apply(t.Context()); err != nil || !ran {
		t.Errorf("apt-get ran: %v, %v", ran, err)
	}
}
