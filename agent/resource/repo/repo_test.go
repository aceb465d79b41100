package repo_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/repo"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func converge(t *testing.T, h *host.Host, proxy string, repos ...*agentv1.Repository) {
	t.Helper()
	s := &desired.State{
		Machine: &agentv1.MachineComponent{HttpProxy: proxy},
		Pool:    &agentv1.PoolComponent{Repositories: repos},
	}
	r := repo.New(s, h)[0]
	if d, err := r.Check(t.Context()); err != nil || d.Empty() {
		t.Errorf("before: %q, %v", d.Text, err)
	}
	if err := r.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Errorf("after: %q, %v", d.Text, err)
	}
}

// apt returns all files below /etc/apt.
func apt(t *testing.T, h *host.Host) map[string]string {
	t.Helper()
	files := make(map[string]string)
	root := filepath.Join(h.Root, "etc/apt")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		files[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestConverge(t *testing.T) {
	h, _, _ := hosttest.New(t)
	const key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----"
	a := &agentv1.Repository{Name: "a", Uris: []string{"https://a.example/deb", "https://b.example/deb"}, Suites: []string{"bookworm"}, Components: []string{"main", "extra"}, SignedBy: key}
	b := &agentv1.Repository{Name: "b", Uris: []string{"http://flat.example/"}, Suites: []string{"./"}, SignedBy: key}
	if err := os.MkdirAll(filepath.Join(h.Root, "etc/apt/sources.list.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	const foreign = "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main\n"
	if err := os.WriteFile(filepath.Join(h.Root, "etc/apt/sources.list.d/debian.sources"), []byte(foreign), 0o644); err != nil {
		t.Fatal(err)
	}
	converge(t, &h, "http://10.0.0.1:3142", a, b)
	want := map[string]string{
		"sources.list.d/debian.sources": foreign,
		"sources.list.d/a.sources":      "# Managed by provisionr-agent.\nTypes: deb\nURIs: https://a.example/deb https://b.example/deb\nSuites: bookworm\nComponents: main extra\nSigned-By: /etc/apt/keyrings/provisionr-a.asc\n",
		"sources.list.d/b.sources":      "# Managed by provisionr-agent.\nTypes: deb\nURIs: http://flat.example/\nSuites: ./\nSigned-By: /etc/apt/keyrings/provisionr-b.asc\n",
		"keyrings/provisionr-a.asc":     key + "\n",
		"keyrings/provisionr-b.asc":     key + "\n",
		"apt.conf.d/90provisionr":       "// Managed by provisionr-agent.\nAcquire::http::Proxy \"http://10.0.0.1:3142\";\n",
	}
	if diff := cmp.Diff(want, apt(t, &h)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	converge(t, &h, "", b)
	for _, gone := range []string{"sources.list.d/a.sources", "keyrings/provisionr-a.asc", "apt.conf.d/90provisionr"} {
		delete(want, gone)
	}
	if diff := cmp.Diff(want, apt(t, &h)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
