//go:build machine

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
)

// smallDisk mounts a file system of 48 MiB for the length of the test.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m,mode=0700"); err != nil {
		t.Fatalf("cannot mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("cannot unmount: %v", err)
		}
	})
	return dir
}

// fill leaves no byte free; it returns what frees the space again.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

const user = `
apiVersion: provisionr/v1
kind: User
metadata: {name: %NAME%}
spec: {role: viewer}
`

// TestDisk fills the disk of a server's data: it refuses to write, says why, and loses nothing.
func TestDisk(t *testing.T) {
	disk := smallDisk(t)
	d := startServers(t, disk, 1, 18200)
	write := func(name string) (int, string) {
		return d.code("apply", "--yes", "-f", d.manifest(strings.ReplaceAll(user, "%NAME%", name)))
	}
	full := func(t *testing.T, name string) {
		t.Helper()
		for range 3 {
			code, out := write(name)
			if code != 1 || !strings.Contains(out, d.data()) || !strings.Contains(out, "full") || !strings.Contains(out, "hint: free space") {
				t.Errorf("a write on a full disk: exit %d: %s", code, out)
			}
			reads(t, d, "before")
		}
	}
	ok := func(t *testing.T, name string) {
		t.Helper()
		if code, out := write(name); code != 0 {
			t.Errorf("a write of %s: exit %d: %s", name, code, out)
		}
	}
	ok(t, "before")

	free := fill(t, disk)
	full(t, "refused")
	if !t.Run("space is freed", func(t *testing.T) { free(); ok(t, "freed") }) {
		return
	}
	absent(t, d, "refused")

	free = fill(t, disk)
	full(t, "refused")
	d.kill()
	if code, out := d.code(d.args...); code != 1 || !strings.Contains(out, d.data()) || !strings.Contains(out, "hint: free space") {
		t.Errorf("a start on a full disk: exit %d: %s", code, out)
	}
	free()
	d.start()
	reads(t, d, "before", "freed")
	absent(t, d, "refused")
	ok(t, "restarted")
	reads(t, d, "before", "freed", "restarted")
}

// TestDiskOfLeader fills the disk of one of three servers, the leader: it says so, another
// leads, and writes go on through the others.
func TestDiskOfLeader(t *testing.T) {
	parent := t.TempDir()
	data := filepath.Join(parent, "data", "s1")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=48m,mode=0700"); err != nil {
		t.Fatalf("cannot mount: %v", err)
	}
	unmount := sync.OnceFunc(func() {
		if err := syscall.Unmount(data, syscall.MNT_DETACH); err != nil {
			t.Errorf("cannot unmount: %v", err)
		}
	})
	t.Cleanup(unmount)
	c := &servers{dev: startServers(t, parent, 3, 18300)}
	// Removing the data would end at the mount.
	t.Cleanup(unmount)
	for n := 1; n <= 3; n++ {
		c.conns = append(c.conns, c.dial(c.api(n), c.admin()))
	}
	c.allVote()
	for leading := c.leader(); leading != 1; leading = c.leader() {
		c.killServer(leading)
		c.allVote()
	}
	if err := c.apply(t.Context(), 1, network("before", 1)); err != nil {
		t.Fatal(err)
	}
	free := fill(t, data)
	err := errs.FromRPC(c.apply(t.Context(), 1, network("refused", 2)))
	if !errs.Is(err, errs.Exhausted) || !strings.Contains(err.Error(), data) || !strings.Contains(errs.HintOf(err), "another server") {
		t.Errorf("a write through the server whose disk is full: %v (hint: %s)", err, errs.HintOf(err))
	}
	for n := 2; n <= 3; n++ {
		if err := c.apply(t.Context(), n, network(fmt.Sprintf("during-%d", n), 1+n)); err != nil {
			t.Errorf("a write through server %d while the disk of server 1 is full: %v", n, err)
		}
	}
	if info, err := c.info(2, leader); err != nil || info.GetLeader() == "s1" {
		t.Errorf("server 1 still leads (%v)", err)
	}
	if names, err := c.networks(1, stale); err != nil || !names["before"] {
		t.Errorf("server 1 does not answer what it knows: %v", err)
	}
	if _, err := c.networks(1, leader); !errs.Is(errs.FromRPC(err), errs.Exhausted) {
		t.Errorf("server 1 answers for the leader: %v", err)
	}
	free()
	// The leader tries ever less often, up to every ten seconds.
	c.eventually("server 1 has caught up", 30*time.Second, func() error {
		names, err := c.networks(1, stale)
		if err == nil && (!names["before"] || !names["during-2"] || !names["during-3"] || names["refused"]) {
			err = fmt.Errorf("it has %v", names)
		}
		return err
	})
	if err := c.apply(t.Context(), 1, network("freed", 9)); err != nil {
		t.Errorf("a write through server 1 after space was freed: %v", err)
	}
}

func reads(t *testing.T, d *dev, users ...string) {
	t.Helper()
	code, out := d.code("get", "users", "-o", "name")
	for _, user := range users {
		if code != 0 || !strings.Contains(out, user) {
			t.Errorf("%s cannot be read: exit %d: %s", user, code, out)
		}
	}
}

func absent(t *testing.T, d *dev, user string) {
	t.Helper()
	if code, out := d.code("get", "users", "-o", "name"); code != 0 || strings.Contains(out, user) {
		t.Errorf("%s was refused, and is there: exit %d: %s", user, code, out)
	}
}
