package repo_test

import (
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/repo"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

func converge(t *testing.T, h *host.Host, repos ...*agentv1.Repository) {
	t.Helper()
	s := &desired.State{
		Machine: &agentv1.MachineComponent{},
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
	converge(t, &h, a, b)
	want := map[string]string{
		"sources.list.d/debian.sources": foreign,
		"sources.list.d/a.sources":      "# Managed by provisionr-agent.\nTypes: deb\nURIs: https://a.example/deb https://b.example/deb\nSuites: bookworm\nComponents: main extra\nSigned-By: /etc/apt/keyrings/provisionr-a.asc\n",
		"sources.list.d/b.sources":      "# Managed by provisionr-agent.\nTypes: deb\nURIs: http://flat.example/\nSuites: ./\nSigned-By: /etc/apt/keyrings/provisionr-b.asc\n",
		"keyrings/provisionr-a.asc":     key + "\n",
		"keyrings/provisionr-b.asc":     key + "\n",
	}
	if diff := cmp.Diff(want, apt(t, &h)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	converge(t, &h, b)
	for _, gone := range []string{"sources.list.d/a.sources", "keyrings/provisionr-a.asc"} {
		delete(want, gone)
	}
	if diff := cmp.Diff(want, apt(t, &h)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestASourceOfTheSystemIsKept(t *testing.T) {
	h, _, _ := hosttest.New(t)
	path := filepath.Join(h.Root, "etc/apt/sources.list.d/debian.sources")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("Types: deb\n")
	own := &agentv1.Repository{Name: "debian", Uris: []string{"https://a.example/deb"}, Suites: []string{"bookworm"}, SignedBy: "key"}
	r := repo.New(&desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{Repositories: []*agentv1.Repository{own}}}, &h)[0]
	if _, err := r.Check(t.Context()); !errs.Is(err, errs.Conflict) {
		t.Errorf("check: %v", err)
	}
	if err := r.Apply(t.Context()); !errs.Is(err, errs.Conflict) {
		t.Errorf("apply: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "Types: deb\n" {
		t.Errorf("%q, %v", b, err)
	}
	// One of ours that somebody wrote anew is drift.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	converge(t, &h, own)
	write("Types: deb\n")
	converge(t, &h, own)
}

func TestKeyByURL(t *testing.T) {
	h, _, _ := hosttest.New(t)
	key := []byte("\x99\x01binary key")
	served := 0
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served++
		w.Write(key)
	}))
	defer site.Close()
	sum := sha256.Sum256(key)
	r := &agentv1.Repository{Name: "a", Uris: []string{"https://a.example/deb"}, Suites: []string{"x"}, Components: []string{"main"}, SignedByUrl: site.URL, SignedBySha256: sum[:]}
	converge(t, &h, r)
	files := apt(t, &h)
	if files["keyrings/provisionr-a.gpg"] != string(key) || !strings.Contains(files["sources.list.d/a.sources"], "provisionr-a.gpg") {
		t.Errorf("%q", files)
	}
	// A new agent needs not fetch it, and an evil server changes nothing.
	key = []byte("-----BEGIN PGP PUBLIC KEY BLOCK----- evil")
	s := &desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{Repositories: []*agentv1.Repository{r}}}
	if d, err := repo.New(s, &h)[0].Check(t.Context()); err != nil || !d.Empty() || served != 1 {
		t.Errorf("%q, %v, served %d times", d.Text, err, served)
	}
	r.Name = "b"
	if err := repo.New(s, &h)[0].Apply(t.Context()); !errs.Is(err, errs.Denied) {
		t.Error(err)
	}
	if files := apt(t, &h); files["sources.list.d/b.sources"] != "" || files["keyrings/provisionr-b.asc"] != "" {
		t.Errorf("%q", files)
	}
}

func TestDnf(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := &desired.State{
		Machine: &agentv1.MachineComponent{Os: &agentv1.OperatingSystem{Distribution: "fedora"}},
		Pool:    &agentv1.PoolComponent{Repositories: []*agentv1.Repository{{Name: "a", Uris: []string{"https://a.example/rpm", "https://b.example/rpm"}, SignedBy: "-----BEGIN PGP PUBLIC KEY BLOCK-----"}}},
	}
	if err := repo.New(s, &h)[0].Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(h.Root, "etc/yum.repos.d/a.repo"))
	want := "# Managed by provisionr-agent.\n[a]\nname=a\nbaseurl=https://a.example/rpm https://b.example/rpm\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/provisionr-a.asc\n"
	if err != nil || string(got) != want {
		t.Errorf("%s %v", got, err)
	}
}

func TestMirrors(t *testing.T) {
	h, _, _ := hosttest.New(t)
	const (
		oneLine = "# deb http://deb.debian.org/debian old main\ndeb [arch=amd64 signed-by=/k.gpg] http://deb.debian.org/debian bookworm main\ndeb http://deb.debian.org/debian-security bookworm-security main\n"
		deb822  = "Types: deb\nURIs: http://deb.debian.org/debian/ https://other.example/x\nSuites: bookworm\nSigned-By: /k.gpg\n"
	)
	if err := os.MkdirAll(filepath.Join(h.Root, "etc/apt/sources.list.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"sources.list": oneLine, "sources.list.d/debian.sources": deb822} {
		if err := os.WriteFile(filepath.Join(h.Root, "etc/apt", name), []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		name    string
		mirrors map[string]string
		prepare func()
		want    map[string]string
	}{
		{"mirrored", map[string]string{"http://deb.debian.org/debian": "http://mirror/d"}, nil, map[string]string{
			"sources.list":                  strings.Replace(oneLine, "k.gpg] http://deb.debian.org/debian ", "k.gpg] http://mirror/d ", 1),
			"sources.list.d/debian.sources": strings.Replace(deb822, "http://deb.debian.org/debian/", "http://mirror/d/", 1),
		}},
		{"other mirrors", map[string]string{"http://deb.debian.org/debian-security": "http://m/s", "http://deb.debian.org/debian": "http://m/d"}, nil, map[string]string{
			"sources.list":                  strings.NewReplacer("k.gpg] http://deb.debian.org/debian ", "k.gpg] http://m/d ", "deb http://deb.debian.org/debian-security", "deb http://m/s").Replace(oneLine),
			"sources.list.d/debian.sources": strings.Replace(deb822, "http://deb.debian.org/debian/", "http://m/d/", 1),
		}},
		{"gone, one of them changed meanwhile", nil, func() {
			if err := os.WriteFile(filepath.Join(h.Root, "etc/apt/sources.list"), []byte("deb http://m/d theirs main\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, map[string]string{"sources.list": "deb http://m/d theirs main\n", "sources.list.d/debian.sources": deb822}},
	}
	for _, step := range steps {
		if step.prepare != nil {
			step.prepare()
		}
		r := repo.New(&desired.State{Machine: &agentv1.MachineComponent{PackageMirrors: step.mirrors}, Pool: &agentv1.PoolComponent{}}, &h)[1]
		if d, err := r.Check(t.Context()); err != nil || d.Empty() {
			t.Errorf("%s: before: %q, %v", step.name, d.Text, err)
		}
		for range 2 {
			if err := r.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
				t.Errorf("%s: after: %q, %v", step.name, d.Text, err)
			}
		}
		if st, err := os.Stat(filepath.Join(h.Root, "etc/apt/sources.list.d/debian.sources")); err != nil || st.Mode() != 0o640 {
			t.Errorf("%s: mode %v, %v", step.name, st.Mode(), err)
		}
		if diff := cmp.Diff(step.want, apt(t, &h)); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", step.name, diff)
		}
	}
}
