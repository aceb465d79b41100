package pkg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// offers reads the repository's own lists: what apt-cache policy says of versions does not tell archives with one version
// apart.
func (a *apt) offers(ctx context.Context, repository *agentv1.Repository, names []string) (map[string][]string, error) {
	if err := a.freshen(ctx); err != nil {
		return nil, err
	}
	wanted, found := make(map[string]bool), make(map[string][]string)
	for _, name := range names {
		wanted[name] = true
	}
	read := 0
	for _, list := range listNames(repository) {
		err := a.readList(list, wanted, func(s *stanza) {
			if s.arch == "all" || s.arch == debianArch() {
				found[s.name] = append(found[s.name], s.version)
			}
		})
		if errors.Is(err, fs.ErrNotExist) {
			continue // of several URIs, or an architecture's alone
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read what repository %s has: %w", repository.Name, err)
		}
		read++
	}
	if read == 0 {
		return nil, errs.New(errs.NotFound, "cannot read what repository %s has: apt keeps no list of it in %s", repository.Name, listsDir).
			WithHint("see with: apt-get update; lists that apt keeps compressed (Acquire::GzipIndexes) are not read")
	}
	for _, versions := range found {
		slices.SortFunc(versions, func(x, y string) int { return compareVersions(y, x) })
	}
	return found, nil
}

// listNames returns the names that apt gives a repository's lists: the URI without its scheme, slashes as underscores.
func listNames(r *agentv1.Repository) []string {
	var names []string
	for _, uri := range r.Uris {
		_, rest, _ := strings.Cut(uri, "://")
		if at := strings.LastIndexByte(rest, '@'); at >= 0 && at < strings.IndexByte(rest+"/", '/') {
			rest = rest[at+1:]
		}
		base := strings.TrimRight(rest, "/") + "/"
		for _, suite := range r.Suites {
			if strings.HasSuffix(suite, "/") {
				names = append(names, listName(base+suite+"Packages"))
				continue
			}
			for _, component := range r.Components {
				for _, arch := range []string{debianArch(), "all"} {
					names = append(names, listName(base+"dists/"+suite+"/"+component+"/binary-"+arch+"/Packages"))
				}
			}
		}
	}
	return names
}

// listName escapes as URItoFileName of apt does.
func listName(uri string) string {
	var b strings.Builder
	for i := range len(uri) {
		switch c := uri[i]; {
		case c == '/':
			b.WriteByte('_')
		case strings.IndexByte("\\|{}[]<>\"^~_=!@#$%&*", c) >= 0 || c <= ' ' || c >= 0x7f:
			fmt.Fprintf(&b, "%%%02x", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
