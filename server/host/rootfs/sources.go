package rootfs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
)

// Source is one apt source of the Debian archive (sources.list(5)).
type Source struct {
	URL        *url.URL
	Suites     []string
	Components []string
}

// archiveKeyring is Debian's own: only sources that it, or no explicit key, signs are the Debian archive.
const archiveKeyring = "debian-archive-keyring"

// ReadSources returns the sources of the Debian archive for the release's codename from an apt configuration directory
// (usually /etc/apt): http and https, component main at least. Other repositories of the host are nobody's business here.
func ReadSources(apt fs.FS, codename string) ([]Source, error) {
	names := []string{"sources.list"}
	entries, err := fs.ReadDir(apt, "sources.list.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read apt sources: %w", err)
	}
	for _, e := range entries {
		names = append(names, path.Join("sources.list.d", e.Name()))
	}
	var sources []Source
	for _, name := range names {
		data, err := fs.ReadFile(apt, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("cannot read apt sources: %w", err)
		case strings.HasSuffix(name, ".list"):
			sources = append(sources, parseList(string(data))...)
		case strings.HasSuffix(name, ".sources"):
			sources = append(sources, parseDeb822(string(data))...)
		}
	}
	sources = archiveOnly(sources, codename)
	if !slices.ContainsFunc(sources, func(s Source) bool { return slices.Contains(s.Suites, codename) }) {
		return nil, errs.New(errs.Unsupported, "the host's apt sources have no Debian %s", codename).
			WithHint("add a source such as \"deb http://deb.debian.org/debian %s main\" to /etc/apt/sources.list", codename)
	}
	return sources, nil
}

// archiveOnly keeps suites of the release and the components of the archive, and merges what is listed twice.
func archiveOnly(sources []Source, codename string) []Source {
	suites := []string{codename, codename + "-updates", codename + "-security"}
	var kept []Source
	for _, s := range sources {
		s.Suites = keep(s.Suites, suites)
		s.Components = keep(s.Components, []string{"main", "contrib", "non-free", "non-free-firmware"})
		if len(s.Suites) == 0 || !slices.Contains(s.Components, "main") || (s.URL.Scheme != "http" && s.URL.Scheme != "https") {
			continue
		}
		same := func(o Source) bool {
			return o.URL.String() == s.URL.String() && slices.Equal(o.Suites, s.Suites)
		}
		if !slices.ContainsFunc(kept, same) {
			kept = append(kept, s)
		}
	}
	return kept
}

func keep(have, wanted []string) []string {
	return slices.DeleteFunc(slices.Clone(have), func(s string) bool { return !slices.Contains(wanted, s) })
}

// parseList reads the one-line format: deb [options] URI suite component...
func parseList(text string) []Source {
	var sources []Source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		options := ""
		if rest = strings.TrimSpace(rest); strings.HasPrefix(rest, "[") {
			options, rest, _ = strings.Cut(rest[1:], "]")
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 || foreignKey(options) {
			continue
		}
		if u, err := url.Parse(fields[0]); err == nil {
			sources = append(sources, Source{URL: u, Suites: fields[1:2], Components: fields[2:]})
		}
	}
	return sources
}

// foreignKey reports whether options of the one-line format name another key than Debian's.
func foreignKey(options string) bool {
	_, after, found := strings.Cut(strings.ToLower(options), "signed-by=")
	return found && !strings.Contains(after, archiveKeyring)
}

// parseDeb822 reads the stanza format.
func parseDeb822(text string) []Source {
	var sources []Source
	stanza, field := map[string]string{}, ""
	end := func() {
		s := stanza
		stanza, field = map[string]string{}, ""
		key, signed := s["signed-by"]
		if !slices.Contains(strings.Fields(s["types"]), "deb") || strings.TrimSpace(s["enabled"]) == "no" ||
			(signed && !strings.Contains(key, archiveKeyring)) {
			return
		}
		for uri := range strings.FieldsSeq(s["uris"]) {
			if u, err := url.Parse(uri); err == nil {
				sources = append(sources, Source{URL: u, Suites: strings.Fields(s["suites"]), Components: strings.Fields(s["components"])})
			}
		}
	}
	for scanner := bufio.NewScanner(strings.NewReader(text)); scanner.Scan(); {
		line := scanner.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			end()
		case line[0] == ' ' || line[0] == '\t':
			stanza[field] += " " + strings.TrimSpace(line)
		default:
			name, value, _ := strings.Cut(line, ":")
			field = strings.ToLower(strings.TrimSpace(name))
			stanza[field] = strings.TrimSpace(value)
		}
	}
	end()
	return sources
}

// HostSources reads the sources of the Debian 12 archive from the apt directory of the host.
func HostSources(dir string) ([]Source, error) { return ReadSources(os.DirFS(dir), Codename) }

// render writes sources for the inside, in the stanza format. The scheme is always http: machines ask the caching proxy,
// which asks upstream with the host's own scheme, and what protects packages is the archive's signature.
func render(sources []Source) string {
	var b strings.Builder
	for _, s := range sources {
		u := *s.URL
		u.Scheme = "http"
		fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n",
			u.String(), strings.Join(s.Suites, " "), strings.Join(s.Components, " "))
	}
	return b.String()
}
