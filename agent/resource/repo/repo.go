package repo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/fetch"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	header = "# Managed by provisionr-agent.\n"
	// maxSource bounds what is read of a sources file to see whose it is.
	maxSource = 4 << 10
	// maxKey bounds a key that is fetched: some with many certifications have 100 KiB.
	maxKey     = 1 << 20
	keyPrefix  = "provisionr-"
	armourHead = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
)

// layout is where a package manager keeps sources and keys.
type layout struct {
	name, sources, ending, keys string
	render                      func(repo *agentv1.Repository, key string) string
}

var (
	aptLayout = layout{"apt", "/etc/apt/sources.list.d", ".sources", "/etc/apt/keyrings", renderApt}
	dnfLayout = layout{"dnf", "/etc/yum.repos.d", ".repo", "/etc/pki/rpm-gpg", renderDnf}
)

// New returns one resource for all repositories, and one for the mirrors.
func New(s *desired.State, h *host.Host) []converge.Resource {
	l := aptLayout
	if s.Machine.GetOs().GetDistribution() == "fedora" {
		l = dnfLayout
	}
	client, err := fetch.New(s.Machine)
	r := &sources{host: h, layout: l, repos: s.Pool.GetRepositories(), client: client, broken: err, keys: make(map[string][]byte)}
	return []converge.Resource{r, &mirrors{host: h, layout: l, by: s.Machine.GetPackageMirrors()}}
}

// renderApt returns a stanza of sources.list(5).
func renderApt(repo *agentv1.Repository, key string) string {
	var b strings.Builder
	b.WriteString(header + "Types: deb\nURIs: " + strings.Join(repo.Uris, " ") + "\nSuites: " + strings.Join(repo.Suites, " ") + "\n")
	if len(repo.Components) > 0 {
		b.WriteString("Components: " + strings.Join(repo.Components, " ") + "\n")
	}
	b.WriteString("Signed-By: " + key + "\n")
	return b.String()
}

// renderDnf returns a section of dnf.conf(5).
func renderDnf(repo *agentv1.Repository, key string) string {
	return header + "[" + repo.Name + "]\nname=" + repo.Name + "\nbaseurl=" + strings.Join(repo.Uris, " ") +
		"\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file://" + key + "\n"
}

type sources struct {
	host   *host.Host
	layout layout
	repos  []*agentv1.Repository
	client *fetch.Client
	broken error
	// keys by repository, as far as known: those given by URL are read from the disk or fetched.
	keys  map[string][]byte
	set   *conffile.Set
	stale []string
	known int
}

// Name implements converge.Resource.
func (r *sources) Name() string { return "repository/" + r.layout.name }

// After implements converge.Ordered: keys are fetched by name, and perhaps through a proxy.
func (r *sources) After() []string { return []string{"proxy", "resolver"} }

// Triggers implements converge.Triggered.
func (r *sources) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: r.layout.sources}, {Kind: converge.OnFile, Name: r.layout.keys}}
}

// Check implements converge.Resource.
func (r *sources) Check(context.Context) (converge.Diff, error) {
	if err := r.refresh(); err != nil {
		return converge.Diff{}, err
	}
	var lines []string
	for _, repo := range r.repos {
		if r.keys[repo.Name] == nil {
			lines = append(lines, fmt.Sprintf("+key of repository %s from %s, sha256 %x", repo.Name, fetch.Redacted(repo.SignedByUrl), repo.SignedBySha256))
		}
	}
	text, err := r.set.Check()
	return converge.Diff{Text: textdiff.Join(append(lines, text)...)}, err
}

// Apply implements converge.Resource. What changed makes the package resource read the archives' lists again. A key that
// cannot be had holds up its own repository only.
func (r *sources) Apply(ctx context.Context) error {
	if r.broken != nil {
		return r.broken
	}
	if err := r.refresh(); err != nil {
		return err
	}
	var failed []error
	for _, repo := range r.repos {
		if r.keys[repo.Name] != nil {
			continue
		}
		key, err := r.client.Bytes(ctx, []string{repo.SignedByUrl}, repo.SignedBySha256, maxKey)
		if err != nil {
			failed = append(failed, fmt.Errorf("key of repository %s: %w", repo.Name, err))
			continue
		}
		r.keys[repo.Name] = key
	}
	if err := r.refresh(); err != nil {
		return errors.Join(append(failed, err)...)
	}
	return errors.Join(append(failed, r.set.Apply(nil))...)
}

// keyPath is where a key lies. Apt tells by the ending whether it is armoured (sources.list(5), Signed-By).
func (r *sources) keyPath(name string, key []byte) string {
	ending := ".gpg"
	if strings.HasPrefix(strings.TrimSpace(string(key)), armourHead) {
		ending = ".asc"
	}
	return r.layout.keys + "/" + keyPrefix + name + ending
}

// refresh looks for keys on the disk, and for stale files of ours, which it adds to the set as absent ones.
func (r *sources) refresh() error {
	var files []conffile.File
	for _, repo := range r.repos {
		key, err := r.key(repo)
		if err != nil {
			return err
		}
		if key == nil {
			continue
		}
		path := r.keyPath(repo.Name, key)
		files = append(files,
			conffile.File{Path: path, Content: key},
			conffile.File{Path: r.layout.sources + "/" + repo.Name + r.layout.ending, Content: []byte(r.layout.render(repo, path))},
		)
	}
	if err := r.foreign(); err != nil {
		return err
	}
	stale, err := r.findStale(files)
	if err != nil {
		return err
	}
	if r.set != nil && slices.Equal(stale, r.stale) && r.known == len(files) {
		return nil
	}
	r.known = len(files)
	for _, path := range stale {
		files = append(files, conffile.File{Path: path, Absent: true})
	}
	r.stale, r.set = stale, conffile.NewSet(r.host, "repository", files...)
	return nil
}

// foreign is an error where a repository has the name of a sources file that is not ours: it would be lost, and with it
// perhaps the operating system's own packages.
func (r *sources) foreign() error {
	for _, repo := range r.repos {
		// Where its key is there, the file is ours, whatever became of it.
		if key := r.layout.keys + "/" + keyPrefix + repo.Name; conffile.Exists(r.host, key+".asc") || conffile.Exists(r.host, key+".gpg") {
			continue
		}
		path := r.layout.sources + "/" + repo.Name + r.layout.ending
		content, err := conffile.Read(r.host, path, maxSource)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !strings.HasPrefix(string(content), header):
			return errs.New(errs.Conflict, "cannot write %s: it is not of repository %s, but of the system or somebody else", path, repo.Name).
				WithHint("give the repository another name, or remove the file")
		}
	}
	return nil
}

// key returns a repository's key; nil if it is still to be fetched.
func (r *sources) key(repo *agentv1.Repository) ([]byte, error) {
	if key := r.keys[repo.Name]; key != nil {
		return key, nil
	}
	if repo.SignedByUrl == "" {
		r.keys[repo.Name] = []byte(strings.TrimRight(repo.SignedBy, "\n") + "\n")
		return r.keys[repo.Name], nil
	}
	for _, ending := range []string{".asc", ".gpg"} {
		content, err := conffile.Read(r.host, r.layout.keys+"/"+keyPrefix+repo.Name+ending, maxKey)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(content); slices.Equal(sum[:], repo.SignedBySha256) {
			r.keys[repo.Name] = content
			return content, nil
		}
	}
	return nil, nil
}

// findStale returns our files that are not wanted. Those of a repository whose key is still to come stay.
func (r *sources) findStale(files []conffile.File) ([]string, error) {
	var stale []string
	wanted := func(path string) bool {
		return slices.ContainsFunc(files, func(f conffile.File) bool { return f.Path == path })
	}
	waits := func(name string) bool {
		return slices.ContainsFunc(r.repos, func(repo *agentv1.Repository) bool { return repo.Name == name && r.keys[name] == nil })
	}
	keys, err := conffile.List(r.host, r.layout.keys, keyPrefix+"*")
	if err != nil {
		return nil, err
	}
	for _, name := range keys {
		bare := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(name, keyPrefix), ".asc"), ".gpg")
		if path := r.layout.keys + "/" + name; !wanted(path) && !waits(bare) {
			stale = append(stale, path)
		}
	}
	names, err := conffile.List(r.host, r.layout.sources, "*"+r.layout.ending)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		path := r.layout.sources + "/" + name
		if wanted(path) || waits(strings.TrimSuffix(name, r.layout.ending)) {
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
