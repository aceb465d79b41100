package rootfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/internal/errs"
)

const deb822 = `# comment
Types: deb deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://deb.nodesource.com/node_20.x
Suites: nodistro
Components: main
Signed-By: /usr/share/keyrings/nodesource.gpg

Types: deb
URIs: https://security.example.org/debian-security
Suites:
 bookworm-security
Components: main
`

func TestReadSources(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"deb822": {
			map[string]string{"sources.list.d/debian.sources": deb822},
			"http://deb.debian.org/debian bookworm,bookworm-updates main,non-free-firmware; https://security.example.org/debian-security bookworm-security main",
		},
		"one line": {
			map[string]string{"sources.list": "# x\ndeb http://mirror/debian bookworm main contrib foo # y\ndeb-src http://mirror/debian bookworm main\n" +
				"deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror/debian bookworm-updates main\n"},
			"http://mirror/debian bookworm main,contrib; http://mirror/debian bookworm-updates main",
		},
		"foreign": {
			map[string]string{
				"sources.list": "deb http://mirror/debian bookworm main\n",
				"sources.list.d/x.list": "deb [signed-by=/etc/apt/keyrings/docker.gpg] https://download.docker.com/linux/debian bookworm stable\n" +
					"deb [signed-by=/k.gpg] http://x/ bookworm main\ndeb http://apt.postgresql.org/pub bookworm-pgdg main\ndeb cdrom:[x]/ bookworm main\ndeb file:/x bookworm main\n",
				"sources.list.d/off.sources": "Types: deb\nEnabled: no\nURIs: http://off\nSuites: bookworm\nComponents: main\n",
				"sources.list.d/README":      "deb http://readme bookworm main\n",
			},
			"http://mirror/debian bookworm main",
		},
		"twice": {map[string]string{"sources.list": "deb http://m/ bookworm main\ndeb http://m/ bookworm main\n"}, "http://m/ bookworm main"},
	} {
		sources, err := ReadSources(mapFS(test.files), "bookworm")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, s := range sources {
			got = append(got, s.URL.String()+" "+strings.Join(s.Suites, ",")+" "+strings.Join(s.Components, ","))
		}
		if diff := cmp.Diff(test.want, strings.Join(got, "; ")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, text := range []string{"", "deb http://archive.ubuntu.com/ubuntu noble main\n", "deb http://m/ bookworm-updates main\n"} {
		if _, err := ReadSources(mapFS(map[string]string{"sources.list": text}), "bookworm"); !errs.Is(err, errs.Unsupported) || errs.HintOf(err) == "" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func mapFS(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, content := range files {
		m[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return m
}

func TestRenderAndHash(t *testing.T) {
	sources, err := ReadSources(mapFS(map[string]string{"sources.list.d/debian.sources": deb822}), "bookworm")
	if err != nil {
		t.Fatal(err)
	}
	text := render(sources)
	if strings.Contains(text, "https:") || sources[1].URL.Scheme != "https" {
		t.Errorf("machines must ask the proxy by http, and the proxy by the host's scheme:\n%s", text)
	}
	again, err := ReadSources(mapFS(map[string]string{"sources.list": "", "x.sources": text, "sources.list.d/x.sources": text}), "bookworm")
	if err != nil || render(again) != text {
		t.Errorf("what is rendered reads as something else: %v", err)
	}
	if Hash(Container(), sources) != Hash(Container(), again) || len(Hash(Container(), sources)) != 16 {
		t.Error("the same recipe has two names")
	}
	if Hash(Container(), sources) == Hash(Container(), sources[:1]) {
		t.Error("other sources have the same name")
	}
	if Hash(VirtualMachine(), sources) == Hash(Container(), sources) {
		t.Error("another recipe has the same name")
	}
}

func TestFinish(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"etc/ssh", "etc/systemd/system"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"etc/ssh/ssh_host_rsa_key", "etc/machine-id"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // masking again is no error
		if err := finish(dir, Container(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/ssh/ssh_host_rsa_key")); !os.IsNotExist(err) {
		t.Error("all machines would share a host key")
	}
	if id, err := os.ReadFile(filepath.Join(dir, "etc/machine-id")); err != nil || len(id) > 0 {
		t.Errorf("all machines would share the machine id %s, %v", id, err)
	}
	if target, err := os.Readlink(filepath.Join(dir, "etc/systemd/system", masked[0])); err != nil || target != "/dev/null" {
		t.Errorf("%s is not masked: %q %v", masked[0], target, err)
	}
}

func TestEnsureWithoutProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	b := &Builder{Dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(b.Dir, buildPrefix+"dead"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Ensure(t.Context()); !errs.Is(err, errs.Unsupported) || errs.HintOf(err) == "" {
		t.Errorf("without mmdebstrap: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(b.Dir, buildPrefix+"*")); len(left) > 0 || b.Ready() {
		t.Errorf("left %v", left)
	}
}

func TestFollow(t *testing.T) {
	var lines []string
	b := &Builder{Progress: func(line string) { lines = append(lines, line) }}
	tail := b.follow(strings.NewReader("one\n\n0%\r50%\rdone\n" + strings.Repeat("l\n", 20)))
	if lines[0] != "one" || lines[1] != "done" || len(tail) != 8 {
		t.Errorf("lines %q, tail %q", lines, tail)
	}
}
