package files

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLockOfRemovedFile(t *testing.T) {
	path := t.TempDir() + "/lock"
	first, err := Acquire(t.Context(), path, func() { t.Error("waited for nobody") })
	if err != nil {
		t.Fatal(err)
	}
	second, waits := make(chan *Lock), make(chan struct{})
	go func() {
		l, err := Acquire(t.Context(), path, func() { close(waits) })
		if err != nil {
			t.Error(err)
		}
		second <- l
	}()
	<-waits
	if err := first.Remove(); err != nil { // the waiter must not end up with the removed file
		t.Fatal(err)
	}
	l := <-second
	if l == nil || !current(l.file, path) {
		t.Fatal("the lock is not the named file's")
	}
	l.Release()
}

func TestLockWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := Acquire(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Acquire(ctx, path, cancel); err == nil {
		t.Error("two have the lock")
	}
	held.Release()
	held, err = Acquire(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	held.Release()
}

func TestTail(t *testing.T) {
	const limit = 1000
	dir := t.TempDir()
	for name, content := range map[string]string{"long": strings.Repeat("x", limit) + "end", "short": "short", "empty": ""} {
		if err := os.WriteFile(dir+"/"+name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Tail(dir, name, limit)
		if want := content[max(0, len(content)-limit):]; err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if err := os.Symlink("/etc/passwd", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", ".", "absent", "../x"} {
		if got, err := Tail(dir, name, limit); err == nil {
			t.Errorf("%s: read %q", name, got)
		}
	}
}

func TestJSON(t *testing.T) {
	path := t.TempDir() + "/x.json"
	if err := WriteJSON(path, map[string]int{"a": 1}); err != nil {
		t.Fatal(err)
	}
	var got map[string]int
	if err := ReadJSON(path, &got); err != nil || got["a"] != 1 {
		t.Errorf("read %v, %v", got, err)
	}
	if err := Write(path, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := ReadJSON(path, &got); err == nil {
		t.Error("half a file was read")
	}
}
