package spec

import (
	"errors"
	"path"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/tmpl"
)

// claim is a path that something of a pool writes.
type claim struct {
	where, what string
	// leaf says that nothing can be below it.
	leaf bool
}

// checkPaths complains about a path that two things of a pool write, and about one below what is no directory.
func checkPaths(d *document, spec *provisionrv1.PoolSpec) {
	var order []string
	claims := map[string]claim{}
	put := func(where, file, what string, leaf bool) {
		if file == "" || file[0] != '/' {
			return
		}
		clean := path.Clean(file)
		if first, ok := claims[clean]; ok {
			d.complain(join(where, "path"), "", "%s is given twice, first in %s", show(clean), first.where)
			return
		}
		claims[clean] = claim{where, what, leaf}
		order = append(order, clean)
	}
	for i, f := range spec.Files {
		what := "a file"
		if f.Link != "" {
			what = "a link"
		}
		put(at("spec.files", i), f.Path, what, !f.Absent && !f.Directory)
	}
	for i, v := range spec.Downloads {
		put(at("spec.downloads", i), v.Path, "a file", !v.Extract)
	}
	if swap := spec.Swap; swap.GetSizeMib() > 0 {
		put("spec.swap", or(swap.Path, "/swapfile"), "a file", true)
	}
	for i, f := range spec.Filesystems {
		// A file system may be mounted on a directory that is declared for its owner and mode.
		if first, ok := claims[path.Clean(f.Path)]; ok && !first.leaf && strings.HasPrefix(first.where, "spec.files") {
			continue
		}
		put(at("spec.filesystems", i), f.Path, "a file system", false)
	}
	for _, file := range order {
		for dir := path.Dir(file); len(dir) > 1; dir = path.Dir(dir) {
			if above, ok := claims[dir]; ok && above.leaf {
				d.complain(join(claims[file].where, "path"), "", "%s is below %s, which is %s", file, dir, above.what)
				break
			}
		}
	}
}

func checkFiles(d *document, pool string, spec *provisionrv1.PoolSpec) {
	data := tmpl.Sample(pool, "provisionr.internal", int(spec.Size), spec.Variables)
	for i, f := range spec.Files {
		p := at("spec.files", i)
		checkPath(d, join(p, "path"), f.Path, spec)
		if f.Absent && (f.Mode != "" && f.Mode != defaultMode || f.Owner != "" && f.Owner != root || f.Group != "" && f.Group != root) {
			d.complain(p, "remove mode, owner and group", "an absent file has no mode, owner or group")
		}
		if f.Link != "" && (f.Mode != "" || f.Owner != "" || f.Group != "") {
			d.complain(p, "remove mode, owner and group: those of the target count", "a link has no mode, owner or group")
		}
		checkLine(d, join(p, "link"), f.Link)
		if f.Secret != "" {
			checkLabel(d, join(p, "secret"), f.Secret, "secret")
		}
		if f.Template != nil {
			checkTemplate(d, join(p, "template"), f.GetTemplate(), data)
			for _, name := range tmpl.Secrets(f.GetTemplate()) {
				checkLabel(d, join(p, "template"), name, "secret")
			}
		}
	}
}

// ours are paths that other parts of a pool or the agent itself write, with what to use instead.
func ours() map[string]string {
	const account = "declare accounts in spec.users"
	return map[string]string{
		"/etc/hosts":              "machine names come from the cluster's DNS; put other names into a Zone",
		"/etc/hostname":           "the name of a machine is its slot",
		"/etc/resolv.conf":        "machines resolve through the cluster's DNS and what they had before",
		"/etc/passwd":             account,
		"/etc/shadow":             account,
		"/etc/group":              account,
		"/etc/gshadow":            account,
		"/etc/sudoers":            "give the account admin: true",
		"/etc/nftables.conf":      "declare rules in spec.firewall",
		"/etc/chrony/chrony.conf": "declare servers in spec.ntp",
		"/etc/machine-id":         "every machine makes its own",
		"/etc/ssh/sshd_config.d/10-provisionr.conf":    "declare settings in spec.ssh.settings",
		"/etc/systemd/system/provisionr-agent.service": "it is Provisionr's own",
		"/usr/sbin/policy-rc.d":                        "it is Provisionr's own",
	}
}

// oursBelow are directories that nobody but Provisionr or the kernel writes to.
func oursBelow() []string {
	return []string{"/etc/provisionr", "/var/lib/provisionr-agent", "/usr/local/lib/provisionr", "/etc/systemd/system/provisionr-agent.service.d", "/etc/ssh/provisionr_principals", "/proc", "/sys", "/dev", "/run", "/boot"}
}

func checkPath(d *document, where, file string, spec *provisionrv1.PoolSpec) {
	if file == "" || file[0] != '/' {
		return // left to the annotated rule
	}
	if hasControl(file) {
		d.complain(where, "", "%s has a control character in it", show(file))
		return
	}
	clean := path.Clean(file)
	if clean != file {
		d.complain(where, "write "+clean, "%s is not a clean path", show(file))
		return
	}
	if instead, ok := ours()[file]; ok {
		d.complain(where, instead, "%s is written by Provisionr or the system", file)
		return
	}
	for _, dir := range oursBelow() {
		if file == dir || strings.HasPrefix(file, dir+"/") {
			d.complain(where, "", "nothing below %s can be declared", dir)
			return
		}
	}
	for _, r := range spec.Repositories {
		if file == "/etc/apt/sources.list.d/"+r.Name+".sources" || file == "/etc/yum.repos.d/"+r.Name+".repo" {
			d.complain(where, "remove it", "%s is written for repository %s", file, r.Name)
		}
	}
	for _, s := range spec.Services {
		unit := "/etc/systemd/system/" + UnitName(s.Name)
		if s.Content != nil && file == unit || s.Override != nil && path.Dir(file) == unit+".d" || s.Masked && file == unit {
			d.complain(where, "remove it", "%s is written for service %s", file, s.Name)
		}
	}
	for _, also := range []struct {
		file, field string
		given       bool
	}{
		{"/etc/timezone", "timezone", spec.Timezone != ""}, {"/etc/localtime", "timezone", spec.Timezone != ""},
		{"/etc/default/locale", "locale", spec.Locale != ""}, {"/etc/locale.conf", "locale", spec.Locale != ""},
		{"/etc/locale.gen", "locale", spec.Locale != ""},
		{"/etc/fstab", "filesystems", len(spec.Filesystems) > 0}, {"/etc/fstab", "swap", spec.Swap != nil},
	} {
		if also.given && file == also.file {
			d.complain(where, "remove it", "%s is written for spec.%s", file, also.field)
		}
	}
}

// checkTemplate maps the position within the template to one in the manifest, where the text is known.
func checkTemplate(d *document, p, text string, data tmpl.Data) {
	err := tmpl.Check(text, data)
	if err == nil || d.tainted(p) {
		return
	}
	const hint = "see docs/templates.md"
	var e *tmpl.Error
	if !errors.As(err, &e) {
		d.complain(p, hint, "%v", err)
		return
	}
	place, ok := d.places[p]
	if !ok || place.firstLine == place.value.line {
		// A quoted or plain text: escapes and folding move its lines, so point at its beginning.
		d.complain(p, hint, "%v", err)
		return
	}
	line := place.firstLine + e.Line - 1
	d.complainAt(position{line, max(e.Column+d.indent(p), 1)}, p, hint, "%s", e.Message)
}

// indent is how far a block scalar is indented, as far as is known: two columns more than its key.
func (d *document) indent(p string) int { return d.places[p].key.column + 1 }
