package spec

import (
	"path"
	"slices"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// usesDnf reports whether a distribution's packages are managed by dnf; those of the others are by apt.
func usesDnf(distribution string) bool { return distribution == "fedora" }

func checkRepositories(d *document, spec *provisionrv1.PoolSpec) {
	d.unique("spec.repositories", len(spec.Repositories), func(i int) (string, string) { return "name", spec.Repositories[i].Name })
	for i, r := range spec.Repositories {
		p := at("spec.repositories", i)
		if r.SignedBy != "" && !strings.Contains(r.SignedBy, "-----END PGP PUBLIC KEY BLOCK-----") {
			d.complain(join(p, "signedBy"), "paste the key with its first and last line", "the key block has no end")
		}
		for j, uri := range r.Uris {
			checkLine(d, at(join(p, "uris"), j), uri)
		}
		checkLine(d, join(p, "signedByUrl"), r.SignedByUrl)
		switch distribution := spec.GetOs().GetDistribution(); {
		case usesDnf(distribution) && len(r.Suites) > 0:
			d.complain(join(p, "suites"), "remove it", "repositories of %s have no suites", distribution)
		case usesDnf(distribution) && len(r.Components) > 0:
			d.complain(join(p, "components"), "remove it", "repositories of %s have no components", distribution)
		case (distribution == "debian" || distribution == "ubuntu") && len(r.Suites) == 0:
			d.complain(join(p, "suites"), "as suites: [bookworm], or [stable/] for a repository without suites", "is missing")
		}
		for j, suite := range r.Suites {
			if strings.HasSuffix(suite, "/") && len(r.Components) > 0 {
				d.complain(at(join(p, "suites"), j), "remove the slash, or components", "%s is a directory, which has no components", show(suite))
			}
		}
	}
}

func checkPackages(d *document, spec *provisionrv1.PoolSpec) {
	d.unique("spec.packages", len(spec.Packages), func(i int) (string, string) { return "name", spec.Packages[i].Name })
	var repositories []string
	for _, r := range spec.Repositories {
		repositories = append(repositories, r.Name)
	}
	for i, p := range spec.Packages {
		at := at("spec.packages", i)
		if p.Absent && p.Version != "" {
			d.complain(join(at, "version"), "remove version or absent", "an absent package has no version")
		}
		if p.Absent && p.Hold {
			d.complain(join(at, "hold"), "remove hold or absent", "an absent package cannot be held")
		}
		if p.Absent && p.Repository != "" {
			d.complain(join(at, "repository"), "remove repository or absent", "an absent package comes from nowhere")
		}
		if p.Repository != "" && !slices.Contains(repositories, p.Repository) {
			hint := near(p.Repository, repositories)
			if hint == "" {
				hint = "declare it in spec.repositories"
			}
			d.complain(join(at, "repository"), hint, "%s is not a repository of this pool", show(p.Repository))
		}
	}
}

func checkDownloads(d *document, spec *provisionrv1.PoolSpec) {
	for i, v := range spec.Downloads {
		p := at("spec.downloads", i)
		checkPath(d, join(p, "path"), v.Path, spec)
		d.unique(join(p, "urls"), len(v.Urls), func(j int) (string, string) { return "", v.Urls[j] })
		for j, url := range v.Urls {
			checkLine(d, at(join(p, "urls"), j), url)
		}
		if v.Strip > 0 && !v.Extract {
			d.complain(join(p, "strip"), "add extract: true", "only an archive that is extracted has directories")
		}
		if v.Extract && (systemDirectory(v.Path) || sharedDirectory(v.Path)) {
			d.complain(join(p, "path"), "as /opt/kafka", "%s would be replaced as a whole, and it is not the archive's alone", v.Path)
		}
	}
}

// systemDirectory reports whether a path is where the operating system itself lives: nothing is mounted there, and nothing
// replaces it.
func systemDirectory(file string) bool {
	if file == "/" || file == "/usr" || file == "/etc" {
		return true
	}
	for _, dir := range []string{"/boot", "/proc", "/sys", "/dev", "/run", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr/bin", "/usr/sbin", "/usr/lib"} {
		if file == dir || strings.HasPrefix(file, dir+"/") && !strings.HasPrefix(file, "/usr/lib/") {
			return true
		}
	}
	return false
}

// sharedDirectory reports whether a path is a directory that many programs have something in.
func sharedDirectory(file string) bool {
	shared := []string{
		"/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/usr/include", "/usr/libexec", "/usr/share", "/usr/src", "/usr/local",
		"/etc/apt", "/etc/default", "/etc/ssh", "/etc/ssl", "/etc/systemd", "/etc/systemd/system", "/etc/pam.d", "/etc/security", "/etc/yum.repos.d",
	}
	switch path.Dir(file) {
	case "/usr/local":
		return slices.Contains([]string{"bin", "etc", "games", "include", "lib", "libexec", "man", "sbin", "share", "src"}, path.Base(file))
	case "/var":
		return slices.Contains([]string{"backups", "cache", "lib", "local", "lock", "log", "mail", "opt", "run", "spool", "tmp"}, path.Base(file))
	}
	return slices.Contains(shared, file)
}
