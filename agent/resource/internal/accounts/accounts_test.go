package accounts

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/provisionr/provisionr/agent/host/hosttest"
)

const passwd = `root:x:0:0:root:/root:/bin/bash
ada:x:1000:1000:Ada,,,:/home/ada:/bin/zsh
ada:x:1:1::/:/bin/false
+nis
broken:x:minus:0::/:
huge:x:99999999999:0::/:/bin/sh
`

const group = `root:x:0:
sudo:x:27:ada,,bob
ada:x:1000:
broken:x::
`

func TestParse(t *testing.T) {
	db := parse(passwd, group)
	if len(db.users) != 2 || len(db.groups) != 3 {
		t.Errorf("%d users, %d groups", len(db.users), len(db.groups))
	}
	ada, ok := db.User("ada")
	if want := (User{"ada", 1000, 1000, "/home/ada", "/bin/zsh"}); !ok || ada != want {
		t.Errorf("ada is %+v", ada)
	}
	for name, want := range map[string]bool{"sudo": true, "ada": true, "root": false, "none": false} {
		if db.Belongs(ada, name) != want {
			t.Errorf("ada in %s: want %v", name, want)
		}
	}
	if uid, ok := parse("", "").UID("root"); uid != 0 || !ok {
		t.Errorf("root is %d, %v", uid, ok)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(passwd, group)
	f.Fuzz(func(t *testing.T, passwd, group string) {
		db := parse(passwd, group)
		for name, u := range db.users {
			if name != u.Name || u.UID < 0 || u.GID < 0 {
				t.Errorf("user %q: %+v", name, u)
			}
		}
	})
}

func TestReaderSeesChanges(t *testing.T) {
	h, _, _ := hosttest.New(t)
	r := NewReader(&h)
	has := func(user, group string) bool {
		t.Helper()
		db, err := r.Load()
		if err != nil {
			t.Fatal(err)
		}
		_, u := db.User(user)
		_, g := db.Group(group)
		return u && g
	}
	if has("ada", "sudo") {
		t.Error("accounts without files")
	}
	etc := filepath.Join(h.Root, "etc")
	if err := errors.Join(os.Mkdir(etc, 0o755), os.WriteFile(filepath.Join(etc, "passwd"), []byte(passwd), 0o644), os.WriteFile(filepath.Join(etc, "group"), []byte(group), 0o644)); err != nil {
		t.Fatal(err)
	}
	if first, again := has("ada", "sudo"), has("ada", "sudo"); !first || !again {
		t.Error("the new files were not read")
	}
	if err := os.Remove(filepath.Join(etc, "group")); err != nil {
		t.Fatal(err)
	}
	if has("ada", "sudo") {
		t.Error("the removed file still counts")
	}
}
