package ospolicy

import (
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	requiredPath = "/run/reboot-required"
	packagesPath = "/run/reboot-required.pkgs"
	releasePath  = "/proc/sys/kernel/osrelease"
	modulesDir   = "/lib/modules"
)

// RebootRequired says why the machine needs a boot, in a line for people; it is empty where it needs none. It reads what
// packages of Debian leave in /run/reboot-required, whether a newer kernel than the running one is installed, and whether
// SELinux or AppArmor wait for a boot. It runs no program.
func RebootRequired(h *host.Host) string {
	var reasons []string
	if conffile.Exists(h, requiredPath) {
		reason := "packages ask for it"
		if names, err := value(h, packagesPath); err == nil && names != "" {
			list := strings.Fields(names)
			slices.Sort(list)
			reason = strings.Join(slices.Compact(list), ", ") + " ask for it"
		}
		reasons = append(reasons, reason)
	}
	if running, err := value(h, releasePath); err == nil && running != "" {
		if newest := newestKernel(h, running); newest != "" {
			reasons = append(reasons, "kernel "+newest+" is installed, "+running+" is running")
		}
	}
	reasons = append(reasons, lsmReasons(h)...)
	return strings.Join(reasons, "; ")
}

// newestKernel returns a kernel that is installed, of the running one's flavour, and newer; else "".
func newestKernel(h *host.Host, running string) string {
	dir, _, err := conffile.Parent(h, modulesDir+"/x", false)
	if err != nil {
		return ""
	}
	defer dir.Close()
	d, err := dir.Open(".")
	if err != nil {
		return ""
	}
	defer d.Close()
	names, err := d.Readdirnames(256)
	if err != nil {
		return ""
	}
	best := running
	for _, name := range names {
		// What a removed kernel leaves behind has no list of its modules.
		if flavour(name) == flavour(running) && compare(name, best) > 0 && conffile.Exists(h, modulesDir+"/"+name+"/modules.builtin") {
			best = name
		}
	}
	if best == running {
		return ""
	}
	return best
}

// flavour is what follows the numbers of a release, as cloud-amd64.
func flavour(release string) string {
	parts := strings.FieldsFunc(release, func(r rune) bool { return r == '-' || r == '.' || r == '+' })
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool {
		return p[0] >= '0' && p[0] <= '9' || strings.HasPrefix(p, "deb") || strings.HasPrefix(p, "fc")
	}), "-")
}

// compare orders releases by their numbers.
func compare(a, b string) int {
	return slices.CompareFunc(numbers(a), numbers(b), func(x, y string) int {
		x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if len(x) != len(y) {
			return len(x) - len(y)
		}
		return strings.Compare(x, y)
	})
}

func numbers(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

func lsmReasons(h *host.Host) []string {
	var reasons []string
	grub, err := value(h, apparmorGrub)
	if param, err2 := value(h, apparmorParam); err == nil && err2 == nil && grub != "" {
		if on := strings.Contains(grub, "apparmor=1"); on != (param == "Y") {
			reasons = append(reasons, map[bool]string{true: "AppArmor is to be enabled", false: "AppArmor is to be disabled"}[on])
		}
	}
	conf, err := value(h, selinuxConf)
	if err != nil {
		return reasons
	}
	enforce, err := value(h, selinuxEnforce)
	if err != nil {
		return reasons
	}
	for line := range strings.Lines(conf) {
		if mode, ok := strings.CutPrefix(strings.TrimSpace(line), "SELINUX="); ok && (strings.TrimSpace(mode) == "disabled") != (enforce == "") {
			reasons = append(reasons, "SELinux is to be "+strings.TrimSpace(mode))
		}
	}
	return reasons
}
