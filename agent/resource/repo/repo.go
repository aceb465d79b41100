package repo

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	sourcesDir = "/etc/apt/sources.list.d"
	keysDir    = "/etc/apt/keyrings"
	proxyPath  = "/etc/apt/apt.conf.d/90provisionr"
	header     = "# Managed by provisionr-agent.\n"
	// maxSource bounds what is read of a sources file to see whose it is.
	maxSource = 4 << 10
)

// New returns one resource for all of apt's sources.
func New(s *desired.State, h *host.Host) []converge.Resource {
	r := &sources{host: h}
	for _, repo := range s.Pool.GetRepositories() {
		key := keysDir + "/provisionr-" + repo.Name + ".asc"
		r.files = append(r.files,
			conffile.File{Path: key, Content: []byte(strings.TrimRight(repo.SignedBy, "\n") + "\n")},
			conffile.File{Path: sourcesDir + "/" + repo.Name + ".sources", Content: render(repo, key)},
		)
	}
	proxy := conffile.File{Path: proxyPath, Absent: s.Machine.GetHttpProxy() == ""}
	if !proxy.Absent {
		proxy.Content = []byte("// Managed by provisionr-agent.\nAcquire::http::Proxy " + strconv.Quote(s.Machine.GetHttpProxy()) + ";\n")
	}
	r.files = append(r.files, proxy)
	return []converge.Resource{r}
}

// render returns a stanza of sources.list(5).
func render(repo *agentv1.Repository, key string) []byte {
	var b strings.Builder
	b.WriteString(header + "Types: deb\nURIs: " + strings.Join(repo.Uris, " ") + "\nSuites: " + strings.Join(repo.Suites, " ") + "\n")
	if len(repo.Components) > 0 {
		b.WriteString("Components: " + strings.Join(repo.Components, " ") + "\n")
	}
	b.WriteString("Signed-By: " + key + "\n")
	return []byte(b.String())
}

type sources struct {
	host  *host.Host
	files []conffile.File
	set   *conffile.Set
	stale []string
}

// Name implements converge.Resource.
func (r *sources) Name() string { return "repository/apt" }

// After implements converge.Ordered.
func (r *sources) After() []string { return nil }

// Check implements converge.Resource.
func (r *sources) Check(context.Context) (converge.Diff, error) {
	if err := r.refresh(); err != nil {
		return converge.Diff{}, err
	}
	text, err := r.set.Check()
	return converge.Diff{Text: text}, err
}

// Apply implements converge.Resource. What changed makes the package resource read the archives' lists again.
func (r *sources) Apply(context.Context) error {
	if err := r.refresh(); err != nil {
		return err
	}
	return r.set.Apply(nil)
}

// refresh looks for stale files of ours and adds them to the set as absent ones.
func (r *sources) refresh() error {
	stale, err := r.findStale()
	if err != nil {
		return err
	}
	if r.set != nil && slices.Equal(stale, r.stale) {
		return nil
	}
	files := slices.Clone(r.files)
	for _, path := range stale {
		files = append(files, conffile.File{Path: path, Absent: true})
	}
	r.stale, r.set = stale, conffile.NewSet(r.host, "repository", files...)
	return nil
}

func (r *sources) findStale() ([]string, error) {
	var stale []string
	wanted := func(path string) bool {
		return slices.ContainsFunc(r.files, func(f conffile.File) bool { return f.Path == path })
	}
	keys, err := conffile.List(r.host, keysDir, "provisionr-*.asc")
	if err != nil {
		return nil, err
	}
	for _, name := range keys {
		if path := keysDir + "/" + name; !wanted(path) {
			stale = append(stale, path)
		}
	}
	names, err := conffile.List(r.host, sourcesDir, "*.sources")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		path := sourcesDir + "/" + name
		if wanted(path) {
			continue
		}
		content, err := conffile.Read(r.host, path, maxSource)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(string(content), header) {
			stale = append(stale, path)
		}
	}
	return stale, nil
}
