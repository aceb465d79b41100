package local

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

// cgroup is a machine's directory in the cgroup2 hierarchy. Below it, payload has the machine's own processes and is
// delegated to its root; aux has what the host runs inside for it, for a cgroup with controllers may have no processes of
// its own (cgroups(7), "no internal processes").
type cgroup struct{ dir string }

func (c cgroup) payload() string { return filepath.Join(c.dir, "payload") }
func (c cgroup) aux() string     { return filepath.Join(c.dir, "aux") }

// cgroup2Root finds where the cgroup2 hierarchy is mounted: /sys/fs/cgroup, or unified below it on hybrid hosts.
func cgroup2Root() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", errs.New(errs.Unsupported, "cannot find a cgroup2 hierarchy").WithHint("mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
}

func (p *Provider) clusterCgroup() (string, error) {
	root, err := cgroup2Root()
	return filepath.Join(root, tableName(p.config.ClusterID)), err
}

func (p *Provider) machineCgroup(id string) (cgroup, error) {
	parent, err := p.clusterCgroup()
	return cgroup{filepath.Join(parent, id)}, err
}

// limits of a machine; zero means none.
type limits struct {
	cpus, memoryMiB uint32
}

// maxTasks bounds the processes and threads of a machine, against fork bombs.
const maxTasks = 32768

// create makes the directories, delegates the payload to root inside, and sets the limits for which the hierarchy has
// controllers; hybrid hosts have none there.
func (c cgroup) create(owner int, l limits) error {
	if err := os.MkdirAll(c.payload(), 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(c.aux(), 0o755); err != nil {
		return err
	}
	cluster := filepath.Dir(c.dir)
	for _, dir := range []string{filepath.Dir(cluster), cluster, c.dir} {
		enableControllers(dir)
	}
	settings := map[string]string{"pids.max": strconv.Itoa(maxTasks)}
	if l.memoryMiB > 0 {
		settings["memory.max"] = strconv.FormatUint(uint64(l.memoryMiB)<<20, 10)
	}
	if l.cpus > 0 {
		settings["cpu.max"] = fmt.Sprintf("%d 100000", uint64(l.cpus)*100000)
	}
	for name, value := range settings {
		err := os.WriteFile(filepath.Join(c.dir, name), []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) { // cgroupfs: no such controller
			return err
		}
	}
	for _, name := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
		if err := os.Chown(filepath.Join(c.payload(), name), owner, owner); err != nil {
			return err
		}
	}
	return nil
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

// destroy kills every process below and removes the directories. It succeeds when there are none.
func (c cgroup) destroy(ctx context.Context) error {
	for {
		populated, err := c.populated()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !populated {
			err := removeTree(c.dir)
			if !errors.Is(err, unix.EBUSY) { // the last process is on its way out
				return err
			}
		} else if err := c.kill(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes in %s do not end: %w", c.dir, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (c cgroup) populated() (bool, error) {
	events, err := os.ReadFile(filepath.Join(c.dir, "cgroup.events"))
	return strings.Contains(string(events), "populated 1"), err
}

// kill uses cgroup.kill (Linux 5.14) or, where there is none, kills what the directories list: the caller repeats it.
func (c cgroup) kill() error {
	err := os.WriteFile(filepath.Join(c.dir, "cgroup.kill"), []byte("1"), 0)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
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
