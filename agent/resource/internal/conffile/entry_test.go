package conffile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

func TestSaveAndRestore(t *testing.T) {
	h, _, _ := hosttest.New(t)
	on := func(name string) string { return filepath.Join(h.Root, name) }
	if err := errors.Join(os.WriteFile(on("f"), []byte("before"), 0o600), os.Symlink("f", on("l"))); err != nil {
		t.Fatal(err)
	}
	var saved []converge.SavedFile
	for _, path := range []string{"/f", "/l", "/none", "/no/where"} {
		f, err := conffile.Save(&h, path)
		if err != nil {
			t.Fatal(err)
		}
		saved = append(saved, f)
	}
	want := []converge.SavedFile{
		{Path: "/f", Content: []byte("before"), Mode: 0o600, UID: os.Getuid(), GID: os.Getgid()}, {Path: "/l", Link: "f"},
		{Path: "/none", Absent: true}, {Path: "/no/where", Absent: true},
	}
	if diff := cmp.Diff(want, saved); diff != "" {
		t.Error(diff)
	}
	if err := errors.Join(os.WriteFile(on("f"), []byte("after"), 0o644), os.Remove(on("l")), os.WriteFile(on("l"), nil, 0o644), os.WriteFile(on("none"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, f := range saved {
		if err := conffile.Restore(&h, f); err != nil {
			t.Fatal(err)
		}
	}
	for i, path := range []string{"/f", "/l", "/none"} {
		if f, err := conffile.Save(&h, path); err != nil || !cmp.Equal(f, want[i]) {
			t.Errorf("%s: %+v, %v", path, f, err)
		}
	}
	if _, err := conffile.Save(&h, "/"); err == nil {
		t.Error("the root was saved")
	}
}
