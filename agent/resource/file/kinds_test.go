package file_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/file"
	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// secrets answers values by name, and is out of reach while empty.
type secrets map[string]string

func (s secrets) Secret(_ context.Context, name string) ([]byte, error) {
	if v, ok := s[name]; ok {
		return []byte(v), nil
	}
	return nil, errs.New(errs.Unavailable, "cannot read secret %s: not connected", name)
}

func TestKinds(t *testing.T) {
	h, _, _ := hosttest.New(t)
	accounts(t, h.Root)
	on := func(name string) string { return filepath.Join(h.Root, name) }
	if err := errors.Join(os.Mkdir(on("old"), 0o755), os.WriteFile(on("current"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	list := file.New(state(
		&agentv1.File{Path: "/srv/data/app/f", Source: &agentv1.File_Content{Content: []byte("x")}},
		&agentv1.File{Path: "/srv/data", Mode: 0o1770, Source: &agentv1.File_Directory{Directory: true}},
		&agentv1.File{Path: "/srv/plain", Source: &agentv1.File_Directory{Directory: true}},
		&agentv1.File{Path: "/current", Source: &agentv1.File_Link{Link: "/srv/data/app"}},
		&agentv1.File{Path: "/old", Source: &agentv1.File_Absent{Absent: true}},
	), &h)
	ordered, err := converge.Order(list)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range ordered {
		names = append(names, r.Name())
		if d, err := r.Check(t.Context()); err != nil || d.Empty() {
			t.Errorf("%s before: %q, %v", r.Name(), d.Text, err)
		}
		if err := r.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"file//srv/data", "file//srv/data/app/f", "file//srv/plain", "file//current", "file//old"}, names); diff != "" {
		t.Error(diff)
	}
	for _, r := range list {
		if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
			t.Errorf("%s after: %q, %v", r.Name(), d.Text, err)
		}
	}
	for name, want := range map[string]os.FileMode{"srv/data": 0o770 | os.ModeDir | os.ModeSticky, "srv/plain": 0o755 | os.ModeDir, "srv/data/app": 0o755 | os.ModeDir} {
		if st, err := os.Stat(on(name)); err != nil || st.Mode() != want {
			t.Errorf("%s: mode %v, want %v, %v", name, st.Mode(), want, err)
		}
	}
	if target, err := os.Readlink(on("current")); err != nil || target != "/srv/data/app" {
		t.Errorf("link to %q, %v", target, err)
	}
	triggered, ok := list[0].(converge.Triggered)
	if !ok || !cmp.Equal(triggered.Triggers(), []converge.Trigger{{Kind: converge.OnFile, Name: "/srv/data/app/f"}}) {
		t.Error("no trigger")
	}
	for drift, spoil := range map[string]func() error{
		"file//srv/data":  func() error { return os.Chmod(on("srv/data"), 0o777) },
		"file//current":   func() error { return errors.Join(os.Remove(on("current")), os.Symlink("/etc", on("current"))) },
		"file//srv/plain": func() error { return os.Remove(on("srv/plain")) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if d, err := r.Check(t.Context()); r.Name() == drift && (err != nil || d.Empty()) {
				t.Errorf("%s: the drift was not found: %v", drift, err)
			}
		}
	}
}

func TestNothingElseIsReplaced(t *testing.T) {
	h, _, _ := hosttest.New(t)
	accounts(t, h.Root)
	if err := errors.Join(os.MkdirAll(filepath.Join(h.Root, "full/of"), 0o755), os.WriteFile(filepath.Join(h.Root, "f"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*agentv1.File{
		{Path: "/full", Source: &agentv1.File_Absent{Absent: true}},
		{Path: "/full", Source: &agentv1.File_Link{Link: "/f"}},
		{Path: "/full", Source: &agentv1.File_Content{}},
		{Path: "/f", Source: &agentv1.File_Directory{Directory: true}},
	} {
		r := file.New(state(f), &h)[0]
		if _, err := r.Check(t.Context()); err == nil {
			t.Errorf("%T of %s: check found nothing wrong", f.Source, f.Path)
		}
		if err := r.Apply(t.Context()); err == nil {
			t.Errorf("%T of %s was applied", f.Source, f.Path)
		}
	}
	if _, err := os.Stat(filepath.Join(h.Root, "full/of")); err != nil {
		t.Error(err)
	}
}

func TestAFileComesAfterTheFileSystemThatItIsOn(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := state(&agentv1.File{Path: "/data/f", Source: &agentv1.File_Content{}})
	s.Pool.Filesystems = []*agentv1.Filesystem{{Path: "/data"}, {Path: "/other"}}
	want := []string{"package", "group", "user", "filesystem//data"}
	if diff := cmp.Diff(want, file.New(s, &h)[0].(converge.Ordered).After()); diff != "" {
		t.Error(diff)
	}
}

func TestAbsentDirectoryGoesAfterWhatIsInIt(t *testing.T) {
	h, _, _ := hosttest.New(t)
	accounts(t, h.Root)
	if err := errors.Join(os.MkdirAll(filepath.Join(h.Root, "a/b"), 0o755), os.WriteFile(filepath.Join(h.Root, "a/b/c"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	gone := &agentv1.File_Absent{Absent: true}
	ordered, err := converge.Order(file.New(state(&agentv1.File{Path: "/a", Source: gone}, &agentv1.File{Path: "/a/b", Source: gone}, &agentv1.File{Path: "/a/b/c", Source: gone}), &h))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range ordered {
		if err := r.Apply(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(h.Root, "a")); !os.IsNotExist(err) {
		t.Errorf("the directory: %v", err)
	}
}

func TestSecrets(t *testing.T) {
	h, _, _ := hosttest.New(t)
	accounts(t, h.Root)
	values := secrets{}
	s := state(
		&agentv1.File{Path: "/etc/key", Source: &agentv1.File_Secret{Secret: "db"}},
		&agentv1.File{Path: "/etc/conf", Mode: 0o644, Source: &agentv1.File_Template{Template: `password={{secret "db"}}` + "\n"}},
	)
	s.Secrets, s.Pool.Secrets = values, []*agentv1.SecretRef{{Name: "db", Revision: 7}}
	list := file.New(s, &h)
	for _, r := range list {
		if _, err := r.Check(t.Context()); !errs.Is(err, errs.Unavailable) {
			t.Errorf("%s without a server: %v", r.Name(), err)
		}
	}
	values["db"] = "hunter2"
	for _, r := range list {
		settle := func(when string) {
			t.Helper()
			d, err := r.Check(t.Context())
			if err != nil || !strings.Contains(d.Text, "content differs (secret db revision 7)") || strings.Contains(d.Text, "hunter") {
				t.Errorf("%s %s: %q, %v", r.Name(), when, d.Text, err)
			}
			if err := r.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
				t.Errorf("%s %s, after: %q, %v", r.Name(), when, d.Text, err)
			}
		}
		settle("new")
		// The old value is as secret as the new one.
		if err := os.WriteFile(filepath.Join(h.Root, strings.TrimPrefix(r.Name(), "file/")), []byte("hunter1"), 0o600); err != nil {
			t.Fatal(err)
		}
		settle("drifted")
	}
	if st, err := os.Stat(filepath.Join(h.Root, "etc/key")); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if b, err := os.ReadFile(filepath.Join(h.Root, "etc/conf")); err != nil || string(b) != "password=hunter2\n" {
		t.Errorf("rendered %q, %v", b, err)
	}
}

func TestErrorsOfTemplatesShowNoSecret(t *testing.T) {
	h, _, _ := hosttest.New(t)
	accounts(t, h.Root)
	s := state(&agentv1.File{Path: "/etc/f", Source: &agentv1.File_Template{Template: `{{slice (secret "db") 99}}`}})
	s.Secrets = secrets{"db": "hunter2"}
	if _, err := file.New(s, &h)[0].Check(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

// A change that keeps size and times is found.
func TestContentIsAlwaysCompared(t *testing.T) {
	h, _, _ := hosttest.New(t)
	accounts(t, h.Root)
	on, past := filepath.Join(h.Root, "etc/f"), time.Now().Add(-time.Hour)
	r := file.New(state(&agentv1.File{Path: "/etc/f", Source: &agentv1.File_Content{Content: []byte("aaaa")}}), &h)[0]
	if err := errors.Join(r.Apply(t.Context()), os.Chtimes(on, past, past)); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !d.Empty() {
		t.Fatal(d, err)
	}
	if err := errors.Join(os.WriteFile(on, []byte("bbbb"), 0o644), os.Chtimes(on, past, past)); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Check(t.Context()); err != nil || !strings.Contains(d.Text, "-bbbb") || !strings.Contains(d.Text, "+aaaa") {
		t.Errorf("got %q, %v", d.Text, err)
	}
}
