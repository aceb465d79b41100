package spec

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

var (
	// localeShape is that of setlocale(3): a language, a territory, a character set and a modifier.
	localeShape = regexp.MustCompile(`^(C|POSIX|[a-z]{2,3}(_[A-Z]{2})?)(\.[A-Za-z0-9-]+)?(@[a-z]+)?$`)
	// zoneOffset is what people write for a time zone that has no name.
	zoneOffset = regexp.MustCompile(`^(UTC|GMT)?[+-][0-9]`)
	zonePart   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*$`)
)

// checkSystem checks the kernel's parameters and modules, time zone and locale, swap and disks.
func checkSystem(d *document, spec *provisionrv1.PoolSpec) {
	checkSysctl(d, spec)
	d.unique("spec.modules", len(spec.Modules), func(i int) (string, string) { return "name", strings.ReplaceAll(spec.Modules[i].Name, "-", "_") })
	for i, m := range spec.Modules {
		p := at("spec.modules", i)
		if m.Absent && m.Options != "" {
			d.complain(join(p, "options"), "remove options or absent", "an absent module has no options")
		}
		checkLine(d, join(p, "options"), m.Options)
	}
	switch zone := spec.Timezone; {
	case zone == "":
	case zoneOffset.MatchString(zone):
		d.complain("spec.timezone", timezoneHint, "%s is an offset, not a time zone", show(zone))
	case slices.ContainsFunc(strings.Split(zone, "/"), func(part string) bool { return !zonePart.MatchString(part) }):
		d.complain("spec.timezone", timezoneHint, "%s is not a time zone", show(zone))
	}
	switch locale := spec.Locale; {
	case locale == "":
	case !localeShape.MatchString(locale):
		d.complain("spec.locale", localeHint, "%s is not a locale", show(locale))
	case locale != "C" && locale != "POSIX" && !strings.Contains(locale, "."):
		language, modifier, ok := strings.Cut(locale, "@")
		if ok {
			modifier = "@" + modifier
		}
		d.complain("spec.locale", "as "+language+".UTF-8"+modifier, "%s does not say its character set", show(locale))
	}
	if swap := spec.Swap; swap != nil {
		switch {
		case swap.SizeMib == 0 && swap.Path != "":
			d.complain("spec.swap.path", "give sizeMib, or remove path", "a machine that does not swap has no swap file")
		case swap.Path != "":
			checkPath(d, "spec.swap.path", swap.Path, spec)
		}
	}
	checkFilesystems(d, spec)
}

// sysctlPath is a parameter's path below /proc/sys: whichever separator comes first is the one (sysctl(8)).
func sysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		return strings.NewReplacer(".", "/", "/", ".").Replace(name)
	}
	return name
}

func checkSysctl(d *document, spec *provisionrv1.PoolSpec) {
	first := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(spec.Sysctl)) {
		p := under("spec.sysctl", name)
		checkLine(d, p, spec.Sysctl[name])
		file := sysctlPath(name)
		switch before, twice := first[file]; {
		case path.Clean("/"+file) != "/"+file || strings.Contains(name, "..") || strings.Contains(name, "./") || strings.Contains(name, "/."):
			d.complain(p, "as vm.swappiness or net/ipv4/conf/eth0.100/forwarding", "%s is not the name of a kernel parameter", show(name))
		case !strings.Contains(file, "/"):
			d.complain(p, "as vm.swappiness", "%s is a directory of kernel parameters", show(name))
		case twice:
			d.complain(p, "", "%s is given twice, first as %s", show(name), before)
		case file == "net/ipv4/ip_forward" && spec.Sysctl[name] == "0" && (spec.GetVpn().GetGateway() || spec.GetVpn().GetRelay()):
			d.complain(p, "remove it", "a gateway or relay of a vpn has to forward")
		default:
			first[file] = name
		}
	}
}

func checkFilesystems(d *document, spec *provisionrv1.PoolSpec) {
	all := spec.Filesystems
	d.unique("spec.filesystems", len(all), func(i int) (string, string) {
		if all[i].Disk == 0 {
			return "device", all[i].Device
		}
		return "disk", strconv.FormatUint(uint64(all[i].Disk), 10)
	})
	d.unique("spec.filesystems", len(all), func(i int) (string, string) { return "label", all[i].Label })
	disks := len(spec.GetHardware().GetDisks())
	for i, f := range all {
		p := at("spec.filesystems", i)
		if n := int(f.Disk); n > disks {
			d.complain(join(p, "disk"), "declare it in spec.hardware.disks", "there is no disk %d: spec.hardware.disks has %d", n, disks)
		}
		for _, file := range []struct{ field, is string }{{"path", f.Path}, {"device", f.Device}} {
			if file.is == "" || file.is[0] != '/' {
				continue
			}
			if clean := path.Clean(file.is); hasControl(file.is) || clean != file.is {
				d.complain(join(p, file.field), "write "+clean, "%s is not a clean path", show(file.is))
			}
		}
		if systemDirectory(f.Path) {
			d.complain(join(p, "path"), "as /data or /var/lib/postgresql", "%s belongs to the operating system", f.Path)
		}
		for _, dir := range oursBelow() {
			if f.Path == dir || strings.HasPrefix(f.Path, dir+"/") || f.Path != "/" && strings.HasPrefix(dir, f.Path+"/") {
				d.complain(join(p, "path"), "", "%s holds what Provisionr itself needs before disks are mounted", f.Path)
			}
		}
		d.unique(join(p, "options"), len(f.Options), func(j int) (string, string) { return "", f.Options[j] })
	}
}
