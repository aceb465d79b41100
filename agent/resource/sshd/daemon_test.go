package sshd

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
)

func TestDetect(t *testing.T) {
	none := host.Unit{Load: "not-found", Active: "inactive"}
	idle := host.Unit{Load: "loaded", Active: "inactive", File: "disabled"}
	for _, c := range []struct {
		name     string
		units    map[string]host.Unit
		want     daemon
		state    string
		reload   string
		commands string
	}{
		{"debian", map[string]host.Unit{"ssh.service": up, "ssh.socket": idle, "sshd.service": up}, daemon{service: "ssh.service", running: true, enabled: true}, "",
			"reload-or-restart ssh.service", "systemctl reload-or-restart ssh.service"},
		{"fedora", map[string]host.Unit{"sshd.service": up, "sshd.socket": idle}, daemon{service: "sshd.service", running: true, enabled: true}, "",
			"reload-or-restart sshd.service", "systemctl reload-or-restart sshd.service"},
		{"ubuntu, nobody connected yet", map[string]host.Unit{"ssh.service": idle, "ssh.socket": up}, daemon{service: "ssh.service", socket: "ssh.socket", enabled: true}, "",
			"daemon-reload, restart ssh.socket", "systemctl daemon-reload; systemctl restart ssh.socket; systemctl stop ssh.service"},
		{"ubuntu, in use", map[string]host.Unit{"ssh.service": {Load: "loaded", Active: "active", File: "disabled"}, "ssh.socket": up}, daemon{service: "ssh.service", socket: "ssh.socket", running: true, enabled: true}, "",
			"daemon-reload, restart ssh.socket, reload-or-restart ssh.service", "systemctl daemon-reload; systemctl restart ssh.socket; systemctl reload-or-restart ssh.service"},
		{"stopped", map[string]host.Unit{"ssh.service": {Load: "loaded", Active: "inactive", File: "enabled"}}, daemon{service: "ssh.service", enabled: true}, "ssh.service is not running",
			"reload-or-restart ssh.service", "systemctl reload-or-restart ssh.service"},
		{"not at boot", map[string]host.Unit{"ssh.service": {Load: "loaded", Active: "active", File: "disabled"}}, daemon{service: "ssh.service", running: true}, "sshd is not started at boot",
			"reload-or-restart ssh.service", "systemctl reload-or-restart ssh.service"},
		{"not installed", nil, daemon{}, "sshd is not installed", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, _, u := hosttest.New(t)
			for name, unit := range c.units {
				u.Set(name, unit)
			}
			got, err := detect(func(name string) (host.Unit, error) {
				if unit, ok := c.units[name]; ok {
					return unit, nil
				}
				return none, nil
			})
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(daemon{})); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
			if got.state() != c.state {
				t.Errorf("state %q", got.state())
			}
			if err := got.reload(t.Context(), &h, true); (err != nil) != (c.units == nil) || strings.Join(u.Log(), ", ") != c.reload {
				t.Errorf("reload: %q, %v", u.Log(), err)
			}
			var lines []string
			for _, command := range got.commands() {
				lines = append(lines, strings.Join(command, " "))
			}
			if strings.Join(lines, "; ") != c.commands {
				t.Errorf("commands %q", lines)
			}
		})
	}
}

func TestEnsure(t *testing.T) {
	h, _, u := hosttest.New(t)
	u.Set("ssh.service", host.Unit{Load: "loaded"})
	if err := (daemon{service: "ssh.service"}).ensure(t.Context(), &h); err != nil || !slices.Equal(u.Log(), []string{"enable ssh.service", "start ssh.service"}) {
		t.Errorf("units %q, %v", u.Log(), err)
	}
}

func TestIncluded(t *testing.T) {
	for config, want := range map[string]bool{
		"": false, "# x\n\nInclude /etc/ssh/sshd_config.d/*.conf\nPort 22\n": true, "Port 22\nInclude /etc/ssh/sshd_config.d/*.conf\n": false,
		"include \"/etc/ssh/sshd_config.d/*.conf\"": true, "Include=/etc/ssh/other.conf /etc/ssh/sshd_config.d/*.conf": true,
		"Include /etc/ssh/other.conf\nInclude sshd_config.d/*.conf\n": true,
	} {
		if included(config) != want {
			t.Errorf("%q: want %v", config, want)
		}
	}
}

func FuzzIncluded(f *testing.F) {
	f.Add("Port 22\nInclude /etc/ssh/sshd_config.d/*.conf\n")
	f.Fuzz(func(t *testing.T, config string) {
		once := withInclude(config)
		if !included(once) || withInclude(once) != once || !strings.HasSuffix(once, config) {
			t.Errorf("%q became %q", config, once)
		}
	})
}
