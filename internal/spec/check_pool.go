package spec

import (
	"errors"
	"path"
	"regexp"
	"slices"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/tmpl"
)

var looksLikeSlot = regexp.MustCompile(`^.+-[1-9][0-9]*$`)

// Assumptions are the names of all proofs, as `provisionr verify` shows them: machines make these of themselves and,
// those that begin with peer, of each other.
func Assumptions() []string {
	return []string{
		"os", "packages", "files", "users", "hostname", "dns.forward", "dns.reverse", "clock", "firewall", "services", "ssh",
		"peer.dns", "peer.firewall",
	}
}

func checkPool(d *document, p *provisionrv1.Pool) {
	spec, name := p.GetSpec(), p.GetMetadata().GetName()
	if longest := len(slotName(name, max(spec.GetSize(), 1))); longest > 63 {
		d.complain("metadata.name", "use a shorter name: a DNS label has at most 63 characters",
			"is too long: machine %s would have a name of %d characters", slotName(name, max(spec.GetSize(), 1)), longest)
	}
	if spec == nil {
		return
	}
	if spec.MinSize != nil && spec.GetMinSize() > spec.Size {
		d.complain("spec.minSize", "", "is %d, but the pool has only size %d", spec.GetMinSize(), spec.Size)
	}
	checkMachines(d, spec)
	checkAliases(d, name, spec.Aliases)
	checkPackages(d, spec)
	checkFiles(d, name, spec)
	checkUsers(d, spec.Users)
	for i, s := range spec.GetNtp().GetServers() {
		if !isHost(s) {
			d.complain(at("spec.ntp.servers", i), "", "%s is not a host name or address", show(s))
		}
	}
	checkFirewall(d, spec.Firewall)
	checkServices(d, spec)
	for i, a := range spec.GetVerify().GetUnprovable() {
		if !slices.Contains(Assumptions(), a) {
			hint := near(a, Assumptions())
			if hint == "" {
				hint = "one of " + list(Assumptions())
			}
			d.complain(at("spec.verify.unprovable", i), hint, "there is no assumption %s", show(a))
		}
	}
}

func checkAliases(d *document, pool string, aliases []string) {
	d.unique("spec.aliases", len(aliases), func(i int) (string, string) { return "", aliases[i] })
	for i, a := range aliases {
		switch {
		case a == pool:
			d.complain(at("spec.aliases", i), "remove it", "%s is the pool's own name, which is always an alias", show(a))
		case looksLikeSlot.MatchString(a):
			d.complain(at("spec.aliases", i), "names that end in a hyphen and a number are the machines'", "%s looks like the name of a machine", show(a))
		}
	}
}

func checkPackages(d *document, spec *provisionrv1.PoolSpec) {
	d.unique("spec.repositories", len(spec.Repositories), func(i int) (string, string) { return "name", spec.Repositories[i].Name })
	for i, r := range spec.Repositories {
		if !strings.Contains(r.SignedBy, "-----END PGP PUBLIC KEY BLOCK-----") {
			d.complain(at("spec.repositories", i)+".signedBy", "paste the key with its first and last line", "the key block has no end")
		}
		for j, uri := range r.Uris {
			if hasControl(uri) {
				d.complain(at(at("spec.repositories", i)+".uris", j), "", "%s has a control character in it", show(uri))
			}
		}
	}
	d.unique("spec.packages", len(spec.Packages), func(i int) (string, string) { return "name", spec.Packages[i].Name })
	for i, p := range spec.Packages {
		if p.Absent && p.Version != "" {
			d.complain(at("spec.packages", i)+".version", "remove version or absent", "an absent package has no version")
		}
	}
}

func checkFiles(d *document, pool string, spec *provisionrv1.PoolSpec) {
	d.unique("spec.files", len(spec.Files), func(i int) (string, string) { return "path", path.Clean(spec.Files[i].Path) })
	paths := map[string]bool{}
	for _, f := range spec.Files {
		paths[f.Path] = !f.Absent
	}
	data := tmpl.Sample(pool, "provisionr.internal", int(spec.Size), spec.Variables)
	for i, f := range spec.Files {
		p := at("spec.files", i)
		checkPath(d, join(p, "path"), f.Path, spec)
		for dir := path.Dir(f.Path); len(dir) > 1; dir = path.Dir(dir) {
			if paths[dir] {
				d.complain(join(p, "path"), "", "%s is below %s, which is a file", f.Path, dir)
				break
			}
		}
		if f.Absent && (f.Mode != "" && f.Mode != defaultMode || f.Owner != "" && f.Owner != root || f.Group != "" && f.Group != root) {
			d.complain(p, "remove mode, owner and group", "an absent file has no mode, owner or group")
		}
		if f.Template != nil {
			checkTemplate(d, join(p, "template"), f.GetTemplate(), data)
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
		"/etc/systemd/system/provisionr-agent.service": "it is Provisionr's own",
		"/usr/sbin/policy-rc.d":                        "it is Provisionr's own",
	}
}

// oursBelow are directories that nobody but Provisionr or the kernel writes to.
func oursBelow() []string {
	return []string{"/etc/provisionr", "/var/lib/provisionr-agent", "/usr/local/lib/provisionr", "/etc/systemd/system/provisionr-agent.service.d", "/proc", "/sys", "/dev", "/run", "/boot"}
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
		if file == "/etc/apt/sources.list.d/"+r.Name+".sources" {
			d.complain(where, "remove it", "%s is written for repository %s", file, r.Name)
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
