// Package implied knows which packages of the operating system other parts of a desired state need, so that a manifest does
// not have to list them.
//
// It is a pure function of the desired state. What a pool says of a package itself has precedence over what is implied.
package implied

import (
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const fedora = "fedora"

// Packages returns the names of the packages, sorted, each once.
func Packages(s *desired.State) []string {
	p, distribution := s.Pool, s.Machine.GetOs().GetDistribution()
	names := []string{"chrony"}
	if p.GetFirewall().GetEnabled() {
		names = append(names, "nftables")
	}
	if slices.ContainsFunc(p.GetUsers(), func(u *agentv1.User) bool { return !u.Absent && (u.Admin || len(u.Sudo) > 0) }) {
		names = append(names, "sudo")
	}
	if p.GetSsh() != nil {
		names = append(names, "openssh-server")
	}
	if u := p.GetOsPolicy().GetUnattendedUpgrades(); u == "security" || u == "all" {
		if distribution == fedora {
			names = append(names, "dnf-automatic")
		} else {
			names = append(names, "unattended-upgrades")
		}
	}
	if p.GetTimezone() != "" {
		names = append(names, "tzdata")
	}
	names = append(names, locales(p.GetLocale(), distribution)...)
	if s.Machine.GetSharedKernel() {
		// Resources of what follows are refused: their programs would be of no use.
		return sorted(names)
	}
	if len(p.GetModules()) > 0 {
		names = append(names, "kmod")
	}
	for _, f := range p.GetFilesystems() {
		switch f.Type {
		case "xfs":
			names = append(names, "xfsprogs")
		case "vfat":
			names = append(names, "dosfstools")
		default:
			names = append(names, "e2fsprogs")
		}
		if f.Partition && distribution != fedora {
			// Elsewhere sfdisk comes with util-linux, which every system has.
			names = append(names, "fdisk")
		}
	}
	return sorted(names)
}

// locales returns what brings a locale. Those that are built into the C library need nothing.
func locales(name, distribution string) []string {
	language, _, _ := strings.Cut(name, "_")
	switch {
	case name == "", name == "POSIX", name == "C", strings.HasPrefix(name, "C."):
		return nil
	case distribution == fedora:
		return []string{"glibc-langpack-" + strings.ToLower(language)}
	}
	return []string{"locales"}
}

func sorted(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
