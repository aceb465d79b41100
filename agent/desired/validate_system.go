package desired

import (
	"crypto/sha256"
	"slices"
	"strings"
	"unicode/utf8"
)

func (s *State) validateDownloads() error {
	taken := make(map[string]bool)
	for _, f := range s.Pool.Files {
		taken[f.Path] = true
	}
	for _, d := range s.Pool.Downloads {
		switch {
		case !isPath(d.Path):
			return invalid("download path %q", d.Path)
		case taken[d.Path]:
			return invalid("path %s comes twice", d.Path)
		case len(d.Urls) == 0 || len(d.Sha256) != sha256.Size:
			return invalid("download %s has no address or no hash", d.Path)
		case d.Mode > 0o7777 || d.Strip > 16:
			return invalid("mode %o or strip %d of download %s", d.Mode, d.Strip, d.Path)
		case d.Owner != "" && !isUser(d.Owner), d.Group != "" && !isUser(d.Group):
			return invalid("owner %q or group %q of download %s", d.Owner, d.Group, d.Path)
		}
		for _, url := range d.Urls {
			if !isWord(url) || !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
				return invalid("address %q of download %s", url, d.Path)
			}
		}
		taken[d.Path] = true
	}
	return nil
}

func (s *State) validateServices() error {
	for _, u := range s.Pool.Services {
		if !isUnit(u.Name) {
			return invalid("service %q", u.Name)
		}
		for _, p := range u.RestartOn {
			if !isPath(p) {
				return invalid("path %q that service %s depends on", p, u.Name)
			}
		}
		if !isText(u.GetContent()) || !isText(u.GetOverride()) {
			return invalid("content of service %s", u.Name)
		}
	}
	return nil
}

func (s *State) validateKernel() error {
	for key, value := range s.Pool.Sysctl {
		// A key becomes a path below /proc/sys.
		if !isSysctl(key) || value == "" || !isPrintable(value) ||
			slices.ContainsFunc([]string{"..", "//", "./", "/."}, func(part string) bool { return strings.Contains(key, part) }) {
			return invalid("kernel parameter %q = %q", key, value)
		}
	}
	for _, m := range s.Pool.Modules {
		if !isModule(m.Name) || !isPrintable(m.Options) {
			return invalid("kernel module %q with options %q", m.Name, m.Options)
		}
	}
	return nil
}

func (s *State) validateDisks() error {
	if swap := s.Pool.Swap; swap != nil && (!isPath(swap.Path) || !isWord(swap.Path)) {
		return invalid("swap file %q", swap.Path)
	}
	seen := make(map[string]bool)
	for _, f := range s.Pool.Filesystems {
		switch {
		case !isPath(f.Path) || !isWord(f.Path) || seen[f.Path]:
			return invalid("path %q of a file system, or it comes twice", f.Path)
		case (f.Disk > 0) == (f.Device != ""):
			return invalid("file system %s is not on one disk or device", f.Path)
		case f.Device != "" && (!strings.HasPrefix(f.Device, "/dev/") || !isPath(f.Device) || !isWord(f.Device)):
			return invalid("device %q of file system %s", f.Device, f.Path)
		case !slices.Contains([]string{"ext4", "xfs", "vfat"}, f.Type):
			return invalid("type %q of file system %s", f.Type, f.Path)
		case !isFilesystemLabel(f.Label):
			return invalid("label %q of file system %s", f.Label, f.Path)
		}
		for _, o := range f.Options {
			if !isOption(o) {
				return invalid("option %q of file system %s", o, f.Path)
			}
		}
		seen[f.Path] = true
	}
	return nil
}

// validateWords checks what is one word or one of a few.
func (s *State) validateWords() error {
	p := s.Pool
	if !isTimezone(p.Timezone) || len(p.Timezone) > 64 {
		return invalid("time zone %q", p.Timezone)
	}
	if !isLocale(p.Locale) || len(p.Locale) > 64 {
		return invalid("locale %q", p.Locale)
	}
	for _, ref := range p.Secrets {
		if !isLabel(ref.Name) {
			return invalid("secret %q", ref.Name)
		}
	}
	for _, word := range slices.Concat(p.Roles, p.Profiles) {
		if !isLabel(word) {
			return invalid("role or profile %q", word)
		}
	}
	policy := p.OsPolicy
	for _, w := range []struct {
		what, is string
		of       []string
	}{
		{"unattended upgrades", policy.GetUnattendedUpgrades(), []string{"", "off", "security", "all"}},
		{"selinux", policy.GetSelinux(), []string{"", "enforcing", "permissive", "disabled"}},
		{"apparmor", policy.GetApparmor(), []string{"", "enabled", "disabled"}},
	} {
		if !slices.Contains(w.of, w.is) {
			return invalid("%s %q", w.what, w.is)
		}
	}
	return nil
}

// isText reports whether s can be the content of a configuration file.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }
