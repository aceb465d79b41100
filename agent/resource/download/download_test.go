package download

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// site serves contents by path, counts what it sent, and may cut a transfer short.
type site struct {
	*httptest.Server
	files  map[string][]byte
	cut    int
	ranges []string
	got    int
}

func newSite(t *testing.T, files map[string][]byte) *site {
	s := &site{files: files}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.got++
		content, ok := s.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		s.ranges = append(s.ranges, r.Header.Get("Range")+r.Header.Get("If-Range"))
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(content)))
		if s.cut > 0 {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(content[:s.cut])
			s.cut = 0
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(s.Close)
	return s
}

func newDownload(t *testing.T, h *host.Host, d *agentv1.Download) *download {
	t.Helper()
	// The tests' own user stands for root.
	passwd := fmt.Sprintf("root:x:%d:%d::/root:/bin/sh\n", os.Getuid(), os.Getgid())
	for name, content := range map[string]string{"passwd": passwd, "group": fmt.Sprintf("root:x:%d:\n", os.Getgid())} {
		if err := h.MkdirAll("/etc", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := h.WriteFile("/etc/"+name, []byte(content), host.Attributes{}); err != nil {
			t.Fatal(err)
		}
	}
	s := &desired.State{Machine: &agentv1.MachineComponent{}, Pool: &agentv1.PoolComponent{Downloads: []*agentv1.Download{d}}}
	return New(s, h)[0].(*download)
}

func sum(content []byte) []byte {
	s := sha256.Sum256(content)
	return s[:]
}

func settle(t *testing.T, d *download) {
	t.Helper()
	if diff, err := d.Check(t.Context()); err != nil || diff.Empty() {
		t.Fatalf("before: %q, %v", diff.Text, err)
	}
	if err := d.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff, err := d.Check(t.Context()); err != nil || !diff.Empty() {
		t.Fatalf("after: %q, %v", diff.Text, err)
	}
}

func TestFile(t *testing.T) {
	h, _, _ := hosttest.New(t)
	content := bytes.Repeat([]byte("binary"), 50_000)
	s := newSite(t, map[string][]byte{"/tool": content, "/other": []byte("not it")})
	want := &agentv1.Download{Path: "/opt/bin/tool", Urls: []string{s.URL + "/gone", s.URL + "/other", s.URL + "/tool"}, Sha256: sum(content), Mode: 0o750}
	d := newDownload(t, &h, want)
	settle(t, d)
	path := filepath.Join(h.Root, "opt/bin/tool")
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left beside it: %v", entries)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	fetched := s.got
	settle(t, d)
	if s.got != fetched {
		t.Error("a wrong mode had it fetched again")
	}
	if err := os.WriteFile(path, []byte("edited"), 0o750); err != nil {
		t.Fatal(err)
	}
	settle(t, d)

	// Size and time lie: only the content tells, and in due time it is asked.
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Repeat([]byte("BINARY"), 50_000)
	if err := os.WriteFile(path, forged, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if diff, err := d.Check(t.Context()); err != nil || !diff.Empty() {
		t.Errorf("too early: %q, %v", diff.Text, err)
	}
	d.seen.at = time.Now().Add(-3 * conffile.FullEvery)
	settle(t, d)
}

func TestResume(t *testing.T) {
	h, _, _ := hosttest.New(t)
	content := bytes.Repeat([]byte("0123456789"), 100_000)
	s := newSite(t, map[string][]byte{"/big": content})
	s.cut = 300_000
	d := newDownload(t, &h, &agentv1.Download{Path: "/opt/big", Urls: []string{s.URL + "/big"}, Sha256: sum(content)})
	if err := d.Apply(t.Context()); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("a transfer that was cut short: %v", err)
	}
	settle(t, d)
	if want := fmt.Sprintf(`bytes=300000-"%x"`, sha256.Sum256(content)); len(s.ranges) != 2 || s.ranges[1] != want {
		t.Errorf("ranges %q", s.ranges)
	}
	// What was resumed from other bytes does not fit, and is fetched anew.
	content = bytes.Repeat([]byte("abcdefghij"), 100_000)
	s.files["/big"], s.cut = content, 1000
	d = newDownload(t, &h, &agentv1.Download{Path: "/opt/big", Urls: []string{s.URL + "/big"}, Sha256: sum(content)})
	if err := d.Apply(t.Context()); err == nil {
		t.Fatal("a transfer that was cut short")
	}
	part, err := filepath.Glob(filepath.Join(h.Root, "opt/.big.*.part"))
	if err != nil || len(part) != 1 {
		t.Fatal(part, err)
	}
	if err := os.WriteFile(part[0], []byte("other bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	settle(t, d)
}

func TestWrongHash(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := newSite(t, map[string][]byte{"/x": []byte("evil")})
	d := newDownload(t, &h, &agentv1.Download{Path: "/opt/x", Urls: []string{s.URL + "/x?secret=1"}, Sha256: sum([]byte("good"))})
	err := d.Apply(t.Context())
	if !errs.Is(err, errs.Denied) || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(h.Root, "opt/x")); !os.IsNotExist(err) {
		t.Error("it was put in place")
	}
}

// member is an entry of an archive of a test.
type member struct {
	name, content, link string
	kind                byte
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Typeflag: m.kind, Linkname: m.link, Mode: 0o4755, Size: int64(len(m.content)), ModTime: time.Unix(1e9, 0)}
		if m.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var honest = []member{
	{name: "app-1/", kind: tar.TypeDir}, {name: "app-1/bin/run", content: "#!/bin/sh\n"}, {name: "app-1/lib/a", content: "a"},
	{name: "app-1/lib/current", link: "../bin/run", kind: tar.TypeSymlink}, {name: "app-1/lib/hard", link: "app-1/lib/a", kind: tar.TypeLink},
}

func TestTree(t *testing.T) {
	plain := tarOf(t, honest...)
	var gz bytes.Buffer
	g := gzip.NewWriter(&gz)
	g.Write(plain)
	g.Close()
	var zipped bytes.Buffer
	z := zip.NewWriter(&zipped)
	for _, name := range []string{"app-1/bin/run", "app-1/lib/a"} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("x"))
	}
	z.Close()
	for name, archive := range map[string][]byte{"tar": plain, "gzip": gz.Bytes(), "zip": zipped.Bytes(), "xz": pipe(t, "xz", plain), "zstd": pipe(t, "zstd", plain)} {
		t.Run(name, func(t *testing.T) {
			h, _, _ := hosttest.New(t)
			h.Commands = host.Processes{}
			s := newSite(t, map[string][]byte{"/a": archive})
			want := &agentv1.Download{Path: "/opt/app", Urls: []string{s.URL + "/a"}, Sha256: sum(archive), Extract: true, Strip: 1}
			d := newDownload(t, &h, want)
			settle(t, d)
			run := filepath.Join(h.Root, "opt/app/bin/run")
			if info, err := os.Stat(run); err != nil || info.Mode()&os.ModeSetuid != 0 {
				t.Error(info, err)
			}
			for _, spoil := range []func() error{
				func() error { return os.WriteFile(run, []byte("edited"), 0o755) },
				func() error { return os.Remove(run) },
				func() error { return os.WriteFile(filepath.Join(h.Root, "opt/app/added"), nil, 0o644) },
				func() error { return os.RemoveAll(filepath.Join(h.Root, "opt/app")) },
			} {
				if err := spoil(); err != nil {
					t.Fatal(err)
				}
				settle(t, d)
			}
			if entries, _ := os.ReadDir(filepath.Join(h.Root, "opt")); len(entries) != 1 {
				t.Errorf("left beside it: %v", entries)
			}
			// A new agent finds it right without reading it.
			if diff, err := newDownload(t, &h, want).Check(t.Context()); err != nil || !diff.Empty() {
				t.Errorf("%q, %v", diff.Text, err)
			}
		})
	}
}

func pipe(t *testing.T, program string, in []byte) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(name, in, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := host.Processes{}.Run(t.Context(), host.Command{Path: program, Args: []string{"-c", name}})
	if err != nil || r.Exit != 0 {
		t.Fatalf("%v: %s", err, r.Stderr)
	}
	return r.Stdout
}

func TestForeignDirectory(t *testing.T) {
	h, _, _ := hosttest.New(t)
	archive := tarOf(t, honest...)
	s := newSite(t, map[string][]byte{"/a": archive})
	if err := h.MkdirAll("/opt/app/theirs", 0o755); err != nil {
		t.Fatal(err)
	}
	d := newDownload(t, &h, &agentv1.Download{Path: "/opt/app", Urls: []string{s.URL + "/a"}, Sha256: sum(archive), Extract: true})
	if _, err := d.Check(t.Context()); !errs.Is(err, errs.Conflict) {
		t.Error(err)
	}
}

func TestEvilArchives(t *testing.T) {
	for name, members := range map[string][]member{
		"absolute":            {{name: "/etc/passwd", content: "x"}},
		"climbs":              {{name: "a/../../x", content: "x"}},
		"link to absolute":    {{name: "l", link: "/etc", kind: tar.TypeSymlink}},
		"link out":            {{name: "a/l", link: "../../x", kind: tar.TypeSymlink}},
		"through a link":      {{name: "l", link: ".", kind: tar.TypeSymlink}, {name: "l/x", content: "x"}},
		"climbs out of links": {{name: "p/q/s", link: "../..", kind: tar.TypeSymlink}, {name: "z", link: "p/q/s/..", kind: tar.TypeSymlink}},
		"hard link out":       {{name: "h", link: "../x", kind: tar.TypeLink}},
		"hard link to link":   {{name: "l", link: "x", kind: tar.TypeSymlink}, {name: "h", link: "l", kind: tar.TypeLink}},
		"device":              {{name: "d", kind: tar.TypeChar}},
		"pipe":                {{name: "d", kind: tar.TypeFifo}},
		"too large":           {{name: "big", content: strings.Repeat("x", 2000)}},
	} {
		h, _, _ := hosttest.New(t)
		archive := tarOf(t, members...)
		s := newSite(t, map[string][]byte{"/a": archive})
		d := newDownload(t, &h, &agentv1.Download{Path: "/opt/app", Urls: []string{s.URL + "/a"}, Sha256: sum(archive), Extract: true})
		d.limits.bytes = 1000
		err := d.Apply(t.Context())
		if !errs.Is(err, errs.Denied) && !errs.Is(err, errs.Exhausted) {
			t.Errorf("%s: %v", name, err)
		}
		if found, _ := filepath.Glob(filepath.Join(h.Root, "opt/app*")); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
}

// FuzzExtract shows that whatever is unpacked stays within its directory and is a file, a directory or a link that stays too.
func FuzzExtract(f *testing.F) {
	f.Add(tarOf(f, honest...))
	f.Add(tarOf(f, member{name: "p/q/s", link: "../..", kind: tar.TypeSymlink}, member{name: "p/q/s/x", content: "x"}))
	f.Fuzz(func(t *testing.T, archive []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "a", "b")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(outer, "archive")
		if err := os.WriteFile(file, archive, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		tr := &tree{root: root, left: 1 << 20, owner: host.Owner{UID: os.Getuid(), GID: os.Getgid()}}
		first, err := head(in)
		if err != nil {
			return
		}
		_ = tr.extract(t.Context(), in, kindOf(first)) // refusals are as good
		for _, above := range []string{outer, filepath.Dir(dir)} {
			if entries, err := os.ReadDir(above); err != nil || len(entries) > 2 {
				t.Fatalf("%v, %v", entries, err)
			}
		}
		err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return nil // a directory that nobody may read
			}
			if d.Type()&os.ModeSymlink != 0 {
				if end, err := filepath.EvalSymlinks(path); err == nil && end != dir && !strings.HasPrefix(end, dir+"/") {
					t.Errorf("%s leads to %s", path, end)
				}
			} else if !d.Type().IsRegular() && !d.IsDir() {
				t.Errorf("%s is %s", path, d.Type())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
