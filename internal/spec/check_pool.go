package spec

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

var looksLikeSlot = regexp.MustCompile(`^.+-[1-9][0-9]*$`)

// Assumptions are the names of all proofs, as `provisionr verify` shows them: machines make these of themselves and,
// some, as peer.dns and vpn.peer, of each other. What a pool does not ask for is not proven.
func Assumptions() []string {
	return []string{
		"os", "packages", "files", "users", "hostname", "dns.forward", "dns.reverse", "clock", "firewall", "services", "ssh",
		"repositories", "downloads", "sysctl", "modules", "timezone", "locale", "swap", "filesystems", "network", "resolver", "ospolicy",
		"firewall.egress", "vpn", "peer.dns", "peer.firewall", "vpn.peer",
		"hadoop.fqdn", "hadoop.address", "hadoop.ptr", "hadoop.getent", "hadoop.loopback", "hadoop.clock",
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
	checkRelease(d, spec.GetOs())
	checkAliases(d, name, spec.Aliases)
	checkRecords(d, "spec.records", "", false, spec.Records)
	checkEndpoints(d, spec.Endpoints)
	checkRepositories(d, spec)
	checkPackages(d, spec)
	checkDownloads(d, spec)
	checkFiles(d, name, spec)
	checkPaths(d, spec)
	checkGroups(d, spec)
	checkUsers(d, spec.Users)
	checkSSH(d, spec.Ssh)
	for i, s := range spec.GetNtp().GetServers() {
		if !isHost(s) {
			d.complain(at("spec.ntp.servers", i), "", "%s is not a host name or address", show(s))
		}
	}
	for i, s := range spec.GetNtp().GetPools() {
		if _, err := netip.ParseAddr(s); err == nil || !isHost(s) {
			d.complain(at("spec.ntp.pools", i), "as 2.debian.pool.ntp.org; addresses go into servers", "%s is not a host name", show(s))
		}
	}
	checkFirewall(d, name, spec)
	checkServices(d, spec)
	checkSystem(d, spec)
	checkNetworking(d, spec)
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

func checkRelease(d *document, os *provisionrv1.OperatingSystem) {
	if strings.ContainsFunc(os.GetRelease(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		d.complain("spec.os.release", `as "12"`, "%s is not a release", show(os.GetRelease()))
	}
}

// checkLabel complains about the name of an object that cannot be one.
func checkLabel(d *document, path, name, what string) {
	if toLabel(name) != name || name == "" {
		hint := "small letters, digits and hyphens"
		if label := toLabel(name); label != "" {
			hint = "as " + label
		}
		d.complain(path, hint, "%s is not the name of a %s", show(name), what)
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
