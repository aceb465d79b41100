package prove

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
)

// sysctl reads the kernel's own parameters below /proc/sys.
func (p *Prover) sysctl(s *desired.State) verdict {
	const expected = "sysctl as desired"
	wanted := s.Pool.GetSysctl()
	var wrong []string
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		name := parameter(key)
		if s.Machine.GetSharedKernel() && !strings.HasPrefix(name, "net/") {
			return sharedKernel(expected)
		}
		paths, err := p.glob("proc/sys/" + name)
		if err != nil || len(paths) == 0 {
			wrong = append(wrong, key+" is no parameter of this kernel")
			continue
		}
		for _, at := range paths {
			content, err := p.host.ReadFile("/" + at)
			if now := strings.Join(strings.Fields(string(content)), " "); err != nil || now != strings.Join(strings.Fields(wanted[key]), " ") {
				wrong = append(wrong, fmt.Sprintf("%s is %q, not %q", strings.ReplaceAll(strings.TrimPrefix(at, "proc/sys/"), "/", "."), now, wanted[key]))
			}
		}
	}
	return mismatch(expected, wrong, repairs)
}

// parameter is the path below /proc/sys of a name as in sysctl.d(5): where the first separator is a dot, dots and slashes
// change places.
func parameter(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(key)
}

func (p *Prover) glob(pattern string) ([]string, error) {
	root, err := p.host.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return fs.Glob(root.FS(), pattern)
}

// modules reads which modules are loaded, or built in. Hyphens and underscores are the same to the kernel.
func (p *Prover) modules(s *desired.State) verdict {
	const expected = "modules as desired"
	if s.Machine.GetSharedKernel() {
		return sharedKernel(expected)
	}
	canonical := func(name string) string { return strings.ReplaceAll(name, "-", "_") }
	content, err := p.host.ReadFile("/proc/modules")
	if err != nil {
		return unprovable(expected, "the kernel does not tell its modules", "use a kernel with modules")
	}
	loaded := make(map[string]bool)
	for line := range strings.Lines(string(content)) {
		name, _, _ := strings.Cut(line, " ")
		loaded[canonical(name)] = true
	}
	release, _ := p.host.ReadFile("/proc/sys/kernel/osrelease")
	// Modules of the kernel itself are in no list of loaded ones; without the file none is known to be.
	builtin, _ := p.host.ReadFile(path.Join("/lib/modules", string(bytes.TrimSpace(release)), "modules.builtin"))
	for line := range strings.Lines(string(builtin)) {
		name, _, _ := strings.Cut(path.Base(strings.TrimSpace(line)), ".")
		loaded[canonical(name)] = true
	}
	var wrong []string
	for _, m := range s.Pool.GetModules() {
		switch is := loaded[canonical(m.Name)]; {
		case m.Absent && is:
			wrong = append(wrong, m.Name+" is loaded")
		case !m.Absent && !is:
			wrong = append(wrong, m.Name+" is not loaded")
		}
	}
	return mismatch(expected, wrong, repairs)
}

// timezone reads the zone of /etc/localtime (localtime(5)).
func (p *Prover) timezone(zone string) verdict {
	root, err := p.host.Open()
	if err != nil {
		return nothing
	}
	defer root.Close()
	target, err := root.Readlink("etc/localtime")
	if errors.Is(err, fs.ErrNotExist) {
		target = "zoneinfo/UTC" // what localtime(5) says of a file that is missing
	} else if err != nil {
		target = "zoneinfo/a copy of unknown name"
	}
	_, found, _ := strings.Cut(target, "zoneinfo/")
	if found != zone && !(isUTC(found) && isUTC(zone)) {
		return failed(zone, found, repairs)
	}
	if _, err := root.Lstat(path.Join("usr/share/zoneinfo", zone)); err != nil && !isUTC(zone) {
		return failed(zone, "the system knows no such zone", "add package tzdata to the pool")
	}
	return proven(zone, zone)
}

func isUTC(zone string) bool { return zone == "UTC" || zone == "Etc/UTC" }

// locale reads the system's LANG (locale.conf(5)) and looks for what the locale is made of.
func (p *Prover) locale(want string) verdict {
	var found string
	for _, name := range []string{"/etc/locale.conf", "/etc/default/locale"} {
		content, err := p.host.ReadFile(name)
		if err != nil {
			continue
		}
		if lang := parseRelease(content)["LANG"]; lang != "" {
			found = lang
			break
		}
	}
	if found != want {
		return failed(want, cmp.Or(found, "none"), repairs)
	}
	language, charset, _ := strings.Cut(want, ".")
	normal := language + "." + strings.ReplaceAll(strings.ToLower(charset), "-", "")
	if language == "C" || language == "POSIX" {
		return proven(want, want)
	}
	for _, name := range []string{want, normal} {
		if made, err := p.glob(path.Join("usr/lib/locale", name)); err == nil && len(made) > 0 {
			return proven(want, want)
		}
	}
	archive, err := p.host.ReadFile("/usr/lib/locale/locale-archive")
	if err != nil || !bytes.Contains(archive, []byte("\x00"+normal+"\x00")) {
		return failed(want, "the locale is set, and was not generated", repairs)
	}
	return proven(want, want)
}

// swap reads where the kernel swaps to. The first page of a swap file is its header: it is not counted (swapon(8)).
func (p *Prover) swap(s *desired.State) verdict {
	want := s.Pool.GetSwap()
	at := cmp.Or(want.GetPath(), "/swapfile")
	expected := fmt.Sprintf("%d MiB in %s", want.GetSizeMib(), at)
	if want.GetSizeMib() == 0 {
		expected = "no swap"
	}
	if s.Machine.GetSharedKernel() {
		return sharedKernel(expected)
	}
	content, err := p.host.ReadFile("/proc/swaps")
	if err != nil {
		return unprovable(expected, "the kernel does not tell where it swaps to", "use a kernel with swap")
	}
	const header = 64 // KiB: the largest page
	var found []string
	right := want.GetSizeMib() == 0
	for i, line := range strings.Split(strings.TrimSpace(string(content)), "\n") {
		fields := strings.Fields(line)
		if i == 0 || len(fields) < 3 {
			continue
		}
		kib, _ := strconv.ParseUint(fields[2], 10, 64)
		size := uint64(want.GetSizeMib()) << 10
		right = want.GetSizeMib() > 0 && (right || fields[0] == at && kib <= size && kib+header >= size)
		found = append(found, fmt.Sprintf("%d MiB in %s", (kib+header)>>10, fields[0]))
	}
	if !right {
		return failed(expected, cmp.Or(strings.Join(found, ", "), "no swap"), repairs)
	}
	return proven(expected, expected)
}

// filesystems reads what is mounted where (proc_pid_mountinfo(5)), and whether by UUID.
func (p *Prover) filesystems(s *desired.State) verdict {
	const expected = "filesystems as desired"
	if s.Machine.GetSharedKernel() {
		return sharedKernel(expected)
	}
	content, err := p.host.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return unprovable(expected, "the kernel does not tell what is mounted", "see whether /proc is mounted")
	}
	mounted := make(map[string][2]string) // the type and device of what is mounted last, by place
	for line := range strings.Lines(string(content)) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if ok && len(left) > 4 && len(right) > 1 {
			mounted[unescape(left[4])] = [2]string{right[0], unescape(right[1])}
		}
	}
	table, _ := p.host.ReadFile("/etc/fstab") // a machine without one mounts nothing at boot, which is said below
	ids := p.uuids()
	var wrong []string
	for _, f := range s.Pool.GetFilesystems() {
		is, ok := mounted[f.Path]
		kind := cmp.Or(f.Type, "ext4")
		switch id := ids[is[1]]; {
		case !ok:
			wrong = append(wrong, f.Path+" is not mounted")
		case is[0] != kind:
			wrong = append(wrong, fmt.Sprintf("%s is %s, not %s", f.Path, is[0], kind))
		case id == "":
			wrong = append(wrong, fmt.Sprintf("%s is of %s, which has no UUID", f.Path, is[1]))
		case !byUUID(string(table), f.Path, id) && !p.mountUnit(f.Path, id):
			wrong = append(wrong, f.Path+" is not mounted by its UUID at boot")
		}
	}
	return mismatch(expected, wrong, repairs)
}

// uuids are the UUIDs of file systems by device, as udev links them.
func (p *Prover) uuids() map[string]string {
	root, err := p.host.Open()
	if err != nil {
		return nil
	}
	defer root.Close()
	const dir = "dev/disk/by-uuid"
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return nil
	}
	ids := make(map[string]string)
	for _, e := range entries {
		if target, err := root.Readlink(path.Join(dir, e.Name())); err == nil {
			ids["/"+path.Join(dir, target)] = e.Name()
		}
	}
	return ids
}

// mountUnit reports whether the place's mount unit (systemd.mount(5)) has it by the UUID.
func (p *Prover) mountUnit(place, id string) bool {
	unit, err := p.host.ReadFile("/etc/systemd/system/" + host.UnitForPath(place, "mount"))
	return err == nil && slices.Contains(strings.Split(string(unit), "\n"), "What=/dev/disk/by-uuid/"+id)
}

// byUUID reports whether fstab(5) has the place by the UUID.
func byUUID(table, place, id string) bool {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) > 1 && unescape(fields[1]) == place && (strings.EqualFold(strings.Trim(fields[0], `"`), "UUID="+id) || strings.EqualFold(fields[0], "/dev/disk/by-uuid/"+id)) {
			return true
		}
	}
	return false
}

// unescape undoes the octal escapes of fstab(5) and mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// osPolicy reads the state of the security modules; upgrades are files, which the resource compares.
func (p *Prover) osPolicy(s *desired.State) verdict {
	policy := s.Pool.GetOsPolicy()
	if policy.GetSelinux() == "" && policy.GetApparmor() == "" {
		return nothing
	}
	const expected = "ospolicy as desired"
	if s.Machine.GetSharedKernel() {
		return sharedKernel(expected)
	}
	var wrong []string
	if want := policy.GetSelinux(); want != "" {
		now := "disabled"
		if content, err := p.host.ReadFile("/sys/fs/selinux/enforce"); err == nil {
			now = map[string]string{"0": "permissive", "1": "enforcing"}[strings.TrimSpace(string(content))]
		}
		if now != want {
			wrong = append(wrong, fmt.Sprintf("SELinux is %s, not %s", now, want))
		}
	}
	if want := policy.GetApparmor(); want != "" {
		now := "disabled"
		if content, err := p.host.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && strings.TrimSpace(string(content)) == "Y" {
			now = "enabled"
		}
		if now != want {
			wrong = append(wrong, fmt.Sprintf("AppArmor is %s, not %s", now, want))
		}
	}
	return mismatch(expected, wrong, "a reboot may be needed: provisionr reboot")
}
