package desired

import (
	"crypto/sha256"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func invalid(format string, args ...any) error {
	return errs.New(errs.Invalid, "cannot use desired state: "+format, args...)
}

func (s *State) validate() error {
	for _, check := range []func() error{
		s.validateMachine, s.validateSurroundings, s.validateMembers, s.validateVPN, s.validateSoftware, s.validateFiles, s.validateDownloads,
		s.validateGroups, s.validateUsers, s.validateSSH, s.validateFirewall, s.validateServices, s.validateKernel, s.validateDisks,
		s.validateNetworking, s.validateWords,
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
	case m.MachineId == "" || !isHost(m.MachineId):
		return invalid("machine id %q", m.MachineId)
	case !isHost(m.Name) || strings.Contains(m.Name, "."):
		return invalid("machine name %q", m.Name)
	case !isHost(m.Domain):
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
	for _, server := range slices.Concat(m.NtpServers, m.NtpPools) {
		// Names may be written with capitals and a final dot.
		if !isAddr(server) && !isHost(strings.ToLower(strings.TrimSuffix(server, "."))) {
			return invalid("time server %q", server)
		}
	}
	for _, server := range m.DnsServers {
		if !isHostPort(server) {
			return invalid("name server %q", server)
		}
	}
	for _, zone := range m.Zones {
		if !isHost(zone) {
			return invalid("zone %q", zone)
		}
	}
	return nil
}

// validateSurroundings checks what the machine's network and cluster have for it.
func (s *State) validateSurroundings() error {
	m := s.Machine
	if !isWord(m.HttpProxy) || strings.ContainsAny(m.HttpProxy, `";`) {
		return invalid("proxy address")
	}
	for from, to := range m.PackageMirrors {
		if from == "" || to == "" || !isWord(from) || !isWord(to) {
			return invalid("package mirror %q for %q", to, from)
		}
	}
	for _, host := range m.NoProxy {
		if !isNoProxy(host) {
			return invalid("%q among the hosts without proxy", host)
		}
	}
	for _, key := range m.SshAuthorities {
		if !isKey(key) {
			return invalid("ssh authority %q", key)
		}
	}
	for name, hash := range m.Programs {
		if !isProgram(name) || len(hash) != sha256.Size {
			return invalid("program %q", name)
		}
	}
	for _, r := range m.ServerRanges {
		if !isCIDR(r) {
			return invalid("servers' range %q", r)
		}
	}
	return nil
}

func (s *State) validateMembers() error {
	for pool, members := range s.Members {
		if !isHost(pool) {
			return invalid("pool name %q", pool)
		}
		for _, m := range members {
			if !isHost(m.Name) || !isHost(m.Fqdn) {
				return invalid("member %q with name %q", m.Name, m.Fqdn)
			}
			if m.Address != "" && !isAddr(m.Address) || m.VpnAddress != "" && !isAddr(m.VpnAddress) {
				return invalid("address %q or %q of member %s", m.Address, m.VpnAddress, m.Name)
			}
			for _, a := range m.FurtherAddresses {
				if !isAddr(a) {
					return invalid("further address %q of member %s", a, m.Name)
				}
			}
		}
	}
	return nil
}

func (s *State) validateSoftware() error {
	for _, p := range s.Pool.Packages {
		if !isPackage(p.Name) || !isVersion(p.Version) {
			return invalid("package %q version %q", p.Name, p.Version)
		}
		if p.Repository != "" && !isRepository(p.Repository) {
			return invalid("repository %q of package %s", p.Repository, p.Name)
		}
	}
	for _, r := range s.Pool.Repositories {
		if !isRepository(r.Name) {
			return invalid("repository %q", r.Name)
		}
		for _, word := range slices.Concat(r.Uris, r.Suites, r.Components, []string{r.SignedByUrl}) {
			if !isWord(word) {
				return invalid("repository %s: %q", r.Name, word)
			}
		}
		if strings.ContainsRune(r.SignedBy, 0) || r.SignedByUrl != "" && len(r.SignedBySha256) != sha256.Size {
			return invalid("key of repository %s", r.Name)
		}
	}
	return nil
}

func (s *State) validateFiles() error {
	seen := make(map[string]bool)
	for _, f := range s.Pool.Files {
		switch {
		case !isPath(f.Path):
			return invalid("file path %q", f.Path)
		case seen[f.Path]:
			return invalid("file %s comes twice", f.Path)
		case f.Source == nil:
			return invalid("file %s has no content", f.Path)
		case f.Mode > 0o7777:
			return invalid("mode %o of file %s", f.Mode, f.Path)
		case f.Owner != "" && !isUser(f.Owner), f.Group != "" && !isUser(f.Group):
			return invalid("owner %q or group %q of file %s", f.Owner, f.Group, f.Path)
		}
		switch source := f.Source.(type) {
		case *agentv1.File_Link:
			if source.Link == "" || !isPrintable(source.Link) {
				return invalid("target %q of link %s", source.Link, f.Path)
			}
		case *agentv1.File_Secret:
			if !isLabel(source.Secret) {
				return invalid("secret %q of file %s", source.Secret, f.Path)
			}
		}
		seen[f.Path] = true
	}
	return nil
}

func isAddr(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

// isPath reports whether s is the clean absolute path of anything but the root.
func isPath(s string) bool {
	return path.IsAbs(s) && path.Clean(s) == s && s != "/" && isPrintable(s)
}

// isWord reports whether s has neither space nor control character in it.
func isWord(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

func isCIDR(s string) bool {
	_, err := netip.ParsePrefix(s)
	return err == nil
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !isAddr(host) && !isHost(host) {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
