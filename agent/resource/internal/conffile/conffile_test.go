package conffile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/host/hosttest"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

func check(t *testing.T, h *host.Host, f *conffile.File, seen *conffile.Seen) string {
	t.Helper()
	d, err := conffile.Check(h, f, seen)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestApplyThenCheckIsEmpty(t *testing.T) {
	h, _, _ := hosttest.New(t)
	for _, f := range []conffile.File{
		{Path: "/etc/motd", Content: []byte("hello\n")},
		{Path: "/deep/below/nothing/f", Content: nil, Mode: 0o600},
		{Path: "/usr/bin/x", Content: []byte("#!/bin/sh\n"), Mode: conffile.Mode(0o4755)},
		{Path: "/etc/motd", Absent: true},
		{Path: "/never/was", Absent: true},
	} {
		before := check(t, &h, &f, &conffile.Seen{})
		if (before == "") != (f.Path == "/never/was") {
			t.Errorf("%s: diff before is %q", f.Path, before)
		}
		if err := conffile.Apply(&h, &f); err != nil {
			t.Fatal(err)
		}
		if after := check(t, &h, &f, &conffile.Seen{}); after != "" {
			t.Errorf("%s: diff after apply: %s", f.Path, after)
		}
	}
	if info, err := os.Stat(filepath.Join(h.Root, "deep/below")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("parent directory: %v, %v", info, err)
	}
}

func TestCheckFindsEveryDifference(t *testing.T) {
	h, _, _ := hosttest.New(t)
	f := conffile.File{Path: "/f", Content: []byte("wanted\n")}
	on := filepath.Join(h.Root, "f")
	for _, c := range []struct {
		name, want string
		spoil      func() error
	}{
		{"content", "+wanted", func() error { return os.WriteFile(on, []byte("other\n"), 0o644) }},
		{"mode", "mode 0600, wanted 0644", func() error { return os.Chmod(on, 0o600) }},
		{"removed", "missing", func() error { return os.Remove(on) }},
		{"link", "not a regular file", func() error { return errors.Join(os.Remove(on), os.Symlink("g", on)) }},
		{"pipe", "not a regular file", func() error { return errors.Join(os.Remove(on), syscall.Mkfifo(on, 0o644)) }},
	} {
		if err := conffile.Apply(&h, &f); err != nil {
			t.Fatal(err)
		}
		var seen conffile.Seen
		if d := check(t, &h, &f, &seen); d != "" {
			t.Fatalf("%s: %s", c.name, d)
		}
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		if d := check(t, &h, &f, &seen); !strings.Contains(d, c.want) {
			t.Errorf("%s: diff %q does not say %q", c.name, d, c.want)
		}
	}
}

// A file that was exchanged with the same size and modification time still has another change time.
func TestStatCacheSeesThroughAForgedModificationTime(t *testing.T) {
	h, _, _ := hosttest.New(t)
	f := conffile.File{Path: "/f", Content: []byte("aaaa")}
	if err := conffile.Apply(&h, &f); err != nil {
		t.Fatal(err)
	}
	on, past := filepath.Join(h.Root, "f"), time.Now().Add(-time.Hour)
	if err := os.Chtimes(on, past, past); err != nil {
		t.Fatal(err)
	}
	var seen conffile.Seen
	if d := check(t, &h, &f, &seen); d != "" || seen == (conffile.Seen{}) {
		t.Fatalf("diff %q, remembered %v", d, seen != conffile.Seen{})
	}
	if err := errors.Join(os.WriteFile(on, []byte("bbbb"), 0o644), os.Chtimes(on, past, past)); err != nil {
		t.Fatal(err)
	}
	if check(t, &h, &f, &seen) == "" {
		t.Error("the exchanged content was not noticed")
	}
}

func TestLinks(t *testing.T) {
	h, _, _ := hosttest.New(t)
	link := func(target, name string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(h.Root, name)), 0o755), os.Symlink(target, filepath.Join(h.Root, name))); err != nil {
			t.Fatal(err)
		}
	}
	// As update-alternatives(1) makes them: absolute, and below the root for us.
	link("/etc/alternatives/app", "etc/app/conf")
	link("/etc/app/real", "etc/alternatives/app")
	link("../../outside", "etc/up")
	link("loop", "etc/loop")
	if err := os.MkdirAll(filepath.Join(h.Root, "etc/app/real"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := conffile.Apply(&h, &conffile.File{Path: "/etc/app/conf/x.cfg", Content: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(h.Root, "etc/app/real/x.cfg")); err != nil || string(b) != "x" {
		t.Errorf("through the links: %q, %v", b, err)
	}
	if err := conffile.Apply(&h, &conffile.File{Path: "/etc/up/f", Content: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(h.Root, "outside/f")); err != nil {
		t.Errorf("a link upwards must end at the root: %v", err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(h.Root), "outside")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link led out of the root: %v", err)
	}
	if err := conffile.Apply(&h, &conffile.File{Path: "/etc/loop/f"}); err == nil {
		t.Error("a loop of links was followed")
	}
}

func TestSetRemembersAReloadThatFailed(t *testing.T) {
	h, _, _ := hosttest.New(t)
	s := conffile.NewSet(&h, "thing", conffile.File{Path: "/etc/a", Content: []byte("a\n")}, conffile.File{Path: "/etc/b", Absent: true})
	broken := errors.New("broken")
	if err := s.Apply(func() error { return broken }); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	if d, err := s.Check(); err != nil || !strings.Contains(d, "not taken up") {
		t.Errorf("after a failed reload: %q, %v", d, err)
	}
	reloads := 0
	for range 2 {
		if err := s.Apply(func() error { reloads++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := s.Check(); err != nil || d != "" || reloads != 1 {
		t.Errorf("in the end: %q, %v, %d reloads", d, err, reloads)
	}
}

func TestAnOwnerWithAnotherNumberIsADifference(t *testing.T) {
	h, _, _ := hosttest.New(t)
	f := conffile.File{Path: "/f", Content: []byte("x")}
	if err := conffile.Apply(&h, &f); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(h.Root, "f"), past, past); err != nil {
		t.Fatal(err)
	}
	var seen conffile.Seen
	if d := check(t, &h, &f, &seen); d != "" {
		t.Fatal(d)
	}
	f.Owner = &host.Owner{UID: os.Geteuid() + 1, GID: os.Getegid()}
	if d := check(t, &h, &f, &seen); !strings.Contains(d, "owner") {
		t.Errorf("diff %q", d)
	}
}

func TestWhatWasSecretIsNotShown(t *testing.T) {
	h, _, _ := hosttest.New(t)
	if err := os.WriteFile(filepath.Join(h.Root, "f"), []byte("password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := check(t, &h, &conffile.File{Path: "/f", Content: []byte("public\n")}, &conffile.Seen{})
	if !strings.Contains(d, "content differs") || strings.Contains(d, "password") {
		t.Errorf("diff %q", d)
	}
}
