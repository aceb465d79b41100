package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/internal/errs"
)

// Root finds where the cgroup2 hierarchy is mounted: /sys/fs/cgroup, or unified below it on hybrid hosts.
func Root() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", errs.New(errs.Unsupported, "cannot find a cgroup2 hierarchy").WithHint("mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
}

// Group is a cgroup2 directory, which may not exist. A provider's groups are two levels below the root: its scope, and
// below it one for each machine.
type Group struct{ Dir string }

// Of returns the group of a machine; an empty id is that of the scope itself.
func Of(scope, id string) (Group, error) {
	root, err := Root()
	return Group{filepath.Join(root, scope, id)}, err
}

// Limits of a machine; zero means none.
type Limits struct {
	CPUs, MemoryMiB uint32
}

// maxTasks bounds the processes and threads of a machine, against fork bombs.
const maxTasks = 32768

// Create makes the directory and sets the limits for which the hierarchy has controllers; hybrid hosts have none there.
func (g Group) Create(l Limits) error {
	if err := os.MkdirAll(g.Dir, 0o755); err != nil {
		return err
	}
	scope := filepath.Dir(g.Dir)
	for _, dir := range []string{filepath.Dir(scope), scope} {
		enableControllers(dir)
	}
	settings := map[string]string{"pids.max": strconv.Itoa(maxTasks)}
	if l.MemoryMiB > 0 {
		settings["memory.max"] = strconv.FormatUint(uint64(l.MemoryMiB)<<20, 10)
	}
	if l.CPUs > 0 {
		settings["cpu.max"] = fmt.Sprintf("%d 100000", uint64(l.CPUs)*100000)
	}
	for name, value := range settings {
		err := os.WriteFile(filepath.Join(g.Dir, name), []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) { // cgroupfs: no such controller
			return err
		}
	}
	return nil
}

// Below makes a directory within the group, which gets all of its controllers. A group with one has no processes of its
// own (cgroups(7), "no internal processes").
func (g Group) Below(name string) (string, error) {
	dir := filepath.Join(g.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	enableControllers(g.Dir)
	return dir, nil
}

// enableControllers makes the directory's controllers available below it, each for itself: some cannot be had everywhere,
// and a machine without a limit is better than no machine.
func enableControllers(dir string) {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for name := range strings.FieldsSeq(string(available)) {
		if slices.Contains([]string{"cpu", "memory", "pids", "io"}, name) {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+name), 0)
		}
	}
}

// Destroy kills every process below and removes the directories. It succeeds when there are none.
func (g Group) Destroy(ctx context.Context) error {
	for {
		populated, err := g.populated()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !populated {
			err := removeTree(g.Dir)
			if !errors.Is(err, unix.EBUSY) { // the last process is on its way out
				return err
			}
		} else if err := g.kill(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes in %s do not end: %w", g.Dir, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (g Group) populated() (bool, error) {
	events, err := os.ReadFile(filepath.Join(g.Dir, "cgroup.events"))
	return strings.Contains(string(events), "populated 1"), err
}

// kill uses cgroup.kill (Linux 5.14) or, where there is none, kills what the directories list: the caller repeats it.
func (g Group) kill() error {
	err := os.WriteFile(filepath.Join(g.Dir, "cgroup.kill"), []byte("1"), 0)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return filepath.WalkDir(g.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "cgroup.procs" {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if pid, err := strconv.Atoi(s.Text()); err == nil && pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL) // it may just have ended
			}
		}
		return f.Close()
	})
}

// removeTree removes cgroup directories, deepest first; their files go with them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
