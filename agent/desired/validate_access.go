package desired

import (
	"path"
	"slices"
	"strings"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func (s *State) validateGroups() error {
	seen := make(map[string]bool)
	for _, g := range s.Pool.Groups {
		if !isUser(g.Name) || seen[g.Name] {
			return invalid("group %q, or it comes twice", g.Name)
		}
		seen[g.Name] = true
	}
	return nil
}

func (s *State) validateUsers() error {
	for _, u := range s.Pool.Users {
		if !isUser(u.Name) {
			return invalid("user %q", u.Name)
		}
		for _, p := range []string{u.Shell, u.Home} {
			if p != "" && (!path.IsAbs(p) || !isWord(p) || strings.Contains(p, ":")) {
				return invalid("shell %q or home directory %q of user %s", u.Shell, u.Home, u.Name)
			}
		}
		if u.Home != "" && !isPath(u.Home) {
			return invalid("home directory %q of user %s", u.Home, u.Name)
		}
		for _, g := range u.Groups {
			if !isUser(g) {
				return invalid("group %q of user %s", g, u.Name)
			}
		}
		if u.Group != "" && !isUser(u.Group) {
			return invalid("primary group %q of user %s", u.Group, u.Name)
		}
		for _, k := range u.SshKeys {
			if !isPrintable(k) {
				return invalid("ssh key of user %s is more than one line", u.Name)
			}
		}
		for _, command := range u.Sudo {
			if !path.IsAbs(command) || !isPrintable(command) {
				return invalid("sudo command %q of user %s", command, u.Name)
			}
		}
	}
	return nil
}

func (s *State) validateSSH() error {
	for keyword, value := range s.Pool.Ssh.GetSettings() {
		if !isKeyword(keyword) || value == "" || !isPrintable(value) {
			return invalid("sshd setting %q %q", keyword, value)
		}
		// Either would make something else of all lines after it.
		if strings.EqualFold(keyword, "Match") || strings.EqualFold(keyword, "Include") {
			return invalid("sshd setting %s", keyword)
		}
	}
	return nil
}

func (s *State) validateFirewall() error {
	f := s.Pool.Firewall
	for _, r := range slices.Concat(f.GetRules(), f.GetEgress()) {
		if err := validateRule(r); err != nil {
			return err
		}
	}
	return nil
}

func validateRule(r *agentv1.FirewallRule) error {
	if !isLabel(r.Name) {
		return invalid("name %q of a firewall rule", r.Name)
	}
	if r.Protocol != "tcp" && r.Protocol != "udp" {
		return invalid("protocol %q of firewall rule %s", r.Protocol, r.Name)
	}
	for _, p := range r.Ports {
		if p.First < 1 || p.Last < p.First || p.Last > 65535 {
			return invalid("ports %d-%d of firewall rule %s", p.First, p.Last, r.Name)
		}
	}
	for _, c := range r.Cidrs {
		if !isCIDR(c) {
			return invalid("source %q of firewall rule %s", c, r.Name)
		}
	}
	for _, name := range slices.Concat(r.Pools, r.Machines) {
		if !isLabel(name) {
			return invalid("pool or machine %q of firewall rule %s", name, r.Name)
		}
	}
	return nil
}
