//go:build machine

package pkg

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/host"
)

// watched calls a function before each command.
type watched struct {
	host.Commands
	before func(host.Command)
}

func (w watched) Run(ctx context.Context, c host.Command) (host.Result, error) {
	w.before(c)
	return w.Commands.Run(ctx, c)
}

// TestTornDatabase tears dpkg's own database after a first transaction, as a power cut may where nothing was synced. The next
// start brings the same packages, marks and files back, with the real dpkg and apt-get.
func TestTornDatabase(t *testing.T) {
	for name, tear := range map[string]func(t *testing.T, h *host.Host, before []byte){
		"status emptied": func(t *testing.T, h *host.Host, _ []byte) { put(t, h, statusPath, nil) },
		"status cut": func(t *testing.T, h *host.Host, _ []byte) {
			content := read(t, h, statusPath)
			put(t, h, statusPath, content[:len(content)/2/4096*4096])
		},
		"status older than the files": func(t *testing.T, h *host.Host, before []byte) { put(t, h, statusPath, before) },
		"files of packages torn": func(t *testing.T, h *host.Host, _ []byte) {
			put(t, h, infoDir+"/jq.list", nil)
			put(t, h, infoDir+"/libonig5:amd64.list", []byte("/.\n/usr/li"))
			put(t, h, infoDir+"/rsync.postinst", make([]byte, 100))
			put(t, h, triggersDir+"/File", nil)
		},
		"an update of the status zeroed": func(t *testing.T, h *host.Host, _ []byte) { put(t, h, updatesPath+"/0000", make([]byte, 300)) },
		"nothing but a file":             func(t *testing.T, h *host.Host, _ []byte) { put(t, h, "/usr/bin/jq", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			h := fresh(t)
			s := tenPackages()
			status, marks := read(t, h, statusPath), read(t, h, statesPath)
			var during []byte
			commands := h.Commands
			h.Commands = watched{commands, func(c host.Command) {
				if c.Path == "dpkg" && !c.Unsynced {
					t.Errorf("dpkg syncs: %v", c.Args)
				}
				during = read(t, h, journalPath)
			}}
			apply(t, h, s)
			h.Commands = commands
			want := state(t, h)

			tear(t, h, status)
			put(t, h, "/etc/init.d/rsync", nil)
			put(t, h, "/usr/bin/htop", make([]byte, 1000))
			j := &journal{}
			if err := json.Unmarshal(during, j); err != nil {
				t.Fatal(err)
			}
			j.Boot = "another"
			content, err := json.Marshal(j)
			if err != nil {
				t.Fatal(err)
			}
			put(t, h, journalPath, content)
			if err := os.Remove(h.Root + settledPath); err != nil {
				t.Fatal(err)
			}
			put(t, h, statesPath, marks)
			apply(t, h, s)
			if diff := cmp.Diff(want, state(t, h)); diff != "" {
				t.Errorf("-before +after: %s", diff)
			}
			if len(read(t, h, "/etc/init.d/rsync")) == 0 {
				t.Error("the configuration file stayed empty")
			}
		})
	}
}

func put(t *testing.T, h *host.Host, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(h.Root+name, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// state is what dpkg and apt say of the machine, and what differs from what was unpacked.
func state(t *testing.T, h *host.Host) []string {
	t.Helper()
	var all []string
	for _, command := range [][]string{
		{"dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\n"}, {"apt-mark", "showauto"}, {"dpkg", "-V"}, {"dpkg", "--audit"}, {"apt-get", "check"},
		{"cat", triggersDir + "/File"},
	} {
		all = append(all, strings.Split(run(t, "chroot", append([]string{h.Root}, command...)...), "\n")...)
	}
	return all
}
