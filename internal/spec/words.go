package spec

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Hints that several rules give.
const (
	sourceHint   = "any, network, self, pool:NAME, role:NAME, machine:SLOT, vpn, an address or a CIDR"
	sha256Hint   = "64 hexadecimal digits in small letters, as `sha256sum FILE` prints"
	timezoneHint = "as Europe/Berlin or Etc/UTC"
	localeHint   = "as de_DE.UTF-8 or C.UTF-8"
)

func requiredHint(f protoreflect.FieldDescriptor) string {
	if f == nil {
		return ""
	}
	if f.Name() == "to" {
		if f.IsList() {
			return sourceHint
		}
		return "as to: 10.9.0.0/16"
	}
	return map[protoreflect.Name]string{
		"os":         `as os: {distribution: debian, release: "12"}`,
		"metadata":   "as metadata: {name: web}",
		"name":       "every object has a name",
		"role":       "viewer, operator or admin",
		"ports":      `as ports: ["80"]`,
		"from":       sourceHint,
		"uris":       "as uris: [https://packages.example.com/debian]",
		"urls":       "as urls: [https://example.com/tool-1.2.tar.gz]",
		"sha256":     sha256Hint,
		"vpn":        "the name of a Vpn",
		"public_key": "44 characters, as `wg pubkey` prints",
		"cidr":       "as cidr: 10.88.0.0/24",
		"domain":     "as domain: provisionr.internal",
		"release":    `as release: "12"`,
		"region":     "as region: eu-central-1",
		"project":    "as project: my-project-123456",
		"secret":     "the name of a Secret: see `provisionr secret set`",
		"keys":       "as keys: [{name: ns2.example.org, secret: ns2}]",
		"address":    `as address: "192.0.2.53"`,
		"target":     "a name relative to the domain, or with a final dot",
		"service":    "the name of a service, as zookeeper",
	}[f.Name()]
}

// patternWords says in words what a pattern asks for.
func patternWords(f protoreflect.FieldDescriptor, value, pattern string, key bool) (message, hint string, ok bool) {
	words := map[protoreflect.FullName][2]string{
		"Repository.uris":              {"is not an http or https address", ""},
		"Package.name":                 {"is not a package name", `small letters, digits, "+", "-" and "."; a version goes into version:`},
		"Package.version":              {"is not a package version", `as "3.8.0-11+deb12u2"`},
		"File.path":                    {"is not an absolute path of a file", "as /etc/motd"},
		"File.mode":                    {"is not an octal mode", `as "0644"`},
		"UserAccount.shell":            {"is not an absolute path", "as /bin/bash"},
		"Ntp.servers":                  {"is not a host name or address", ""},
		"FirewallRule.ports":           {"is not a port or range of ports", `as "80" or "8000-8010"`},
		"Service.name":                 {"is not the name of a unit", "as nginx or nginx.service"},
		"Service.restart_on":           {"is not an absolute path", "list the paths of files of this pool"},
		"PoolSpec.variables":           {"is not a variable name", "letters, digits and _, not beginning with a digit"},
		"NetworkSpec.gateway":          {"is not an address", ""},
		"ZoneSpec.domain":              {"is not a domain name of at least two labels in small letters", "as provisionr.internal, without a final dot"},
		"Metadata.labels":              {"is not a label", "letters, digits, -, _, . and /, at most 63"},
		"Repository.name":              {"is not a repository name", "small letters, digits, -, _ and ."},
		"Repository.suites":            {"is not a suite", "as bookworm"},
		"Repository.components":        {"is not a component", "as main"},
		"Endpoint.url":                 {"is not an http or https address", "as https://cloud.example.com:8443"},
		"AwsProvider.region":           {"is not a region", "as eu-central-1"},
		"AwsProvider.role_arn":         {"is not the ARN of a role", "as arn:aws:iam::123456789012:role/provisionr"},
		"GceProvider.project":          {"is not the id of a project", "the id, not the name or number, as my-project-123456"},
		"GceProvider.region":           {"is not a region", "as europe-west3"},
		"Image.parameter":              {"is not the name of a parameter", "as /aws/service/debian/release/12/latest/amd64"},
		"Image.url":                    {"is neither an http or https address nor an absolute path", "as https://images.example.com/debian-12.qcow2"},
		"Image.sha256":                 {"is not a SHA-256 hash", sha256Hint},
		"Repository.signed_by":         {"is not an ASCII-armoured public key", "paste that of the archive (gpg --armor --export), from its first line -----BEGIN PGP PUBLIC KEY BLOCK-----"},
		"Repository.signed_by_url":     {"is not an http or https address", ""},
		"Repository.signed_by_sha256":  {"is not a SHA-256 hash", sha256Hint},
		"Download.path":                {"is not an absolute path", "as /usr/local/bin/tool"},
		"Download.urls":                {"is not an http or https address", ""},
		"Download.sha256":              {"is not a SHA-256 hash", sha256Hint},
		"Download.mode":                {"is not an octal mode", `as "0755"`},
		"UserAccount.home":             {"is not an absolute path", "as /home/ops"},
		"UserAccount.sudo":             {"is not a command with an absolute path", "as /usr/bin/systemctl restart kafka"},
		"Ntp.pools":                    {"is not a host name", "as 2.debian.pool.ntp.org"},
		"EgressRule.ports":             {"is not a port or range of ports", `as "443" or "8000-8010"`},
		"Ssh.settings":                 {"is not a keyword of sshd_config(5)", "as MaxAuthTries"},
		"Ssh.settings=":                {"is not a value of one line", ""},
		"PoolSpec.sysctl":              {"is not the name of a kernel parameter", "as vm.swappiness"},
		"PoolSpec.sysctl=":             {"is not a value of one line", ""},
		"PoolSpec.timezone":            {"is not a time zone", timezoneHint},
		"PoolSpec.locale":              {"is not a locale", localeHint},
		"KernelModule.name":            {"is not the name of a kernel module", "as br_netfilter"},
		"KernelModule.options":         {"are not options of one line", "as modprobe.d(5) has them"},
		"Swap.path":                    {"is not an absolute path", "as /swapfile"},
		"Filesystem.path":              {"is not an absolute path without spaces", "as /data"},
		"Filesystem.device":            {"is not a block device", "as /dev/disk/by-id/nvme-data"},
		"Filesystem.options":           {"is not an option of mount(8)", "one option an item, as noatime"},
		"Filesystem.label":             {"is not a label", "letters, digits, _ and -, at most 11"},
		"NetworkSpec.package_mirrors":  {"is not an http or https address", "as http://deb.debian.org/debian: http://mirror.example.com/debian"},
		"NetworkSpec.package_mirrors=": {"is not an http or https address", "as http://deb.debian.org/debian: http://mirror.example.com/debian"},
		"NetworkSpec.no_proxy":         {"is not a host, a domain or a range", "as localhost, .example.com or 10.0.0.0/8"},
		"VpnPeerSpec.public_key":       {"is not a WireGuard public key", "44 characters, as `wg pubkey` prints"},
		"StaticRecord.name":            {"is not a name", "small letters, digits, - and _, with dots between, relative to the domain; @ is the domain itself"},
		"StaticRecord.cname":           {"is not a name", "relative to the domain as db, or with a final dot as db.example.org."},
		"ServiceRecord.target":         {"is not a name", "relative to the domain as db, or with a final dot as db.example.org."},
		"TransferKey.name":             {"is not the name of a key", "as ns2.example.org, in small letters and without a final dot"},
		"Spot.max_price":               {"is not a price for an hour", `as "0.045", in the provider's currency, without its name`},
	}
	name := protoreflect.FullName(f.Parent().Name() + "." + f.Name())
	w, ok := words[name+"="]
	if !ok || !f.IsMap() || key {
		w, ok = words[name]
	}
	if ok {
		return show(value) + " " + w[0], w[1], true
	}
	switch {
	case pattern == labelPattern:
		hint := "small letters, digits and hyphens, beginning and ending with a letter or digit"
		if label := toLabel(value); label != "" {
			hint = "as " + label
		}
		return fmt.Sprintf("%s is not a DNS label", show(value)), hint, true
	case pattern == namePattern, f.Name() == "owner", f.Name() == "group":
		return fmt.Sprintf("%s is not an account name", show(value)), "small letters, digits, _ and -, beginning with a letter", true
	}
	return "", "", false
}

// toLabel makes a DNS label of what was written, or "" where nothing is left.
func toLabel(s string) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		case r == '_' || r == '.' || r == ' ' || r == '-':
			return '-'
		}
		return -1
	}, s)
	return strings.Trim(mapped[:min(len(mapped), 63)], "-")
}
