package desired

import (
	"net"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/provisionr/provisionr/internal/errs"
)

// The patterns repeat what servers refuse at admission: a resource may put these strings into files and commands.
var (
	hostPattern    = regexp.MustCompile(`^([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?$`)
	packagePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,127}$`)
	versionPattern = regexp.MustCompile(`^([0-9][A-Za-z0-9.+:~-]*)?$`)
	userPattern    = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	repoPattern    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$`)
	unitPattern    = regexp.MustCompile(`^[A-Za-z0-9:_.@\\-]{1,255}\.(service|socket|timer|target|path|mount|automount|swap|slice)$`)
)

func invalid(format string, args ...any) error {
	return errs.New(errs.Invalid, "cannot use desired state: "+format, args...)
}

func (s *State) validate() error {
	for _, check := range []func() error{
		s.validateMachine, s.validateMembers, s.validateSoftware, s.validateFiles, s.validateUsers, s.validateFirewall, s.validateServices,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) validateMachine() error {
	m := s.Machine
	switch {
	case m.MachineId == "" || !hostPattern.MatchString(m.MachineId):
		return invalid("machine id %q", m.MachineId)
	case !hostPattern.MatchString(m.Name) || strings.Contains(m.Name, "."):
		return invalid("machine name %q", m.Name)
	case !hostPattern.MatchString(m.Domain):
		return invalid("domain %q", m.Domain)
	case m.Fqdn != m.Name+"."+m.Domain || len(m.Fqdn) > 253:
		return invalid("name %q is not machine name and domain", m.Fqdn)
	case m.Pool != s.Pool.Name:
		return invalid("machine of pool %q with component of pool %q", m.Pool, s.Pool.Name)
	}
	if m.Address != "" && !isAddr(m.Address) {
		return invalid("address %q", m.Address)
	}
	if m.Cidr != "" && !isCIDR(m.Cidr) {
		return invalid("range %q", m.Cidr)
	}
	for _, server := range m.NtpServers {
		// Names may be written with capitals and a final dot.
		if !isAddr(server) && !hostPattern.MatchString(strings.ToLower(strings.TrimSuffix(server, "."))) {
			return invalid("time server %q", server)
		}
	}
	for _, server := range m.DnsServers {
		if !isHostPort(server) {
			return invalid("name server %q", server)
		}
	}
	for _, zone := range m.Zones {
		if !hostPattern.MatchString(zone) {
			return invalid("zone %q", zone)
		}
	}
	if strings.ContainsFunc(m.HttpProxy, func(r rune) bool { return r <= ' ' || r == '"' || r == ';' || r == 0x7f }) {
		return invalid("proxy address")
	}
	return nil
}

func (s *State) validateMembers() error {
	for pool, members := range s.Members {
		if !hostPattern.MatchString(pool) {
			return invalid("pool name %q", pool)
		}
		for _, m := range members {
			if !hostPattern.MatchString(m.Name) || !hostPattern.MatchString(m.Fqdn) {
				return invalid("member %q with name %q", m.Name, m.Fqdn)
			}
			if m.Address != "" && !isAddr(m.Address) {
				return invalid("address %q of member %s", m.Address, m.Name)
			}
		}
	}
	return nil
}

func (s *State) validateSoftware() error {
	for _, p := range s.Pool.Packages {
		if !packagePattern.MatchString(p.Name) || !versionPattern.MatchString(p.Version) {
			return invalid("package %q version %q", p.Name, p.Version)
		}
	}
	for _, r := range s.Pool.Repositories {
		if !repoPattern.MatchString(r.Name) {
			return invalid("repository %q", r.Name)
		}
		for _, list := range [][]string{r.Uris, r.Suites, r.Components} {
			for _, word := range list {
				if strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
					return invalid("repository %s: %q", r.Name, word)
				}
			}
		}
	}
	return nil
}

func (s *State) validateFiles() error {
	seen := make(map[string]bool)
	for _, f := range s.Pool.Files {
		switch {
		case !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" || !isPrintable(f.Path):
			return invalid("file path %q", f.Path)
		case seen[f.Path]:
			return invalid("file %s comes twice", f.Path)
		case f.Source == nil:
			return invalid("file %s has no content", f.Path)
		case f.Mode > 0o7777:
			return invalid("mode %o of file %s", f.Mode, f.Path)
		case f.Owner != "" && !userPattern.MatchString(f.Owner), f.Group != "" && !userPattern.MatchString(f.Group):
			return invalid("owner %q or group %q of file %s", f.Owner, f.Group, f.Path)
		}
		seen[f.Path] = true
	}
	return nil
}

func (s *State) validateUsers() error {
	for _, u := range s.Pool.Users {
		if !userPattern.MatchString(u.Name) {
			return invalid("user %q", u.Name)
		}
		if u.Shell != "" && (!path.IsAbs(u.Shell) || !isPrintable(u.Shell) || strings.Contains(u.Shell, ":")) {
			return invalid("shell %q of user %s", u.Shell, u.Name)
		}
		for _, g := range u.Groups {
			if !userPattern.MatchString(g) {
				return invalid("group %q of user %s", g, u.Name)
			}
		}
		for _, k := range u.SshKeys {
			if !isPrintable(k) {
				return invalid("ssh key of user %s is more than one line", u.Name)
			}
		}
	}
	return nil
}

func (s *State) validateFirewall() error {
	for _, r := range s.Pool.Firewall.GetRules() {
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
	}
	return nil
}

func (s *State) validateServices() error {
	for _, u := range s.Pool.Services {
		if !unitPattern.MatchString(u.Name) {
			return invalid("service %q", u.Name)
		}
	}
	return nil
}

func isAddr(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

func isCIDR(s string) bool {
	_, err := netip.ParsePrefix(s)
	return err == nil
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !isAddr(host) && !hostPattern.MatchString(host) {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
