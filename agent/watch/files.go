package watch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// events are those that change what a check would see. A file that is written to is told when it is closed: a program that
	// keeps one open, as a log, would be heard at each line. The full check finds what stays open.
	events = unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	// maxDirs bounds the directories that are watched, each of which costs the kernel about 1 KiB. The full check finds the
	// rest.
	maxDirs = 2048
	// maxRounds bounds how often directories are looked for anew while others make and remove them.
	maxRounds = 4
)

// files watches paths by the directories that they are in: a file that is replaced is another one, and one that is missing
// cannot be watched. Of a path whose directory is missing too, the nearest one above is watched for the next part.
type files struct {
	root string

	mu    sync.Mutex
	names []string
	// notify is nil while the source does not run.
	notify *os.File
	// dirs are the watched directories, by the kernel's number; several paths may lead to one.
	dirs map[int32]*dir
}

// dir is a watched directory.
type dir struct {
	// entries leads from what is in it to the names to tell; "" stands for all of it.
	entries map[string][]string
	// steps are entries that lead to a directory that is missing yet.
	steps map[string]bool
}

func newFiles(root string) *files { return &files{root: root} }

func (f *files) set(names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names = slices.Clone(names)
	if f.notify != nil {
		f.place()
	}
}

func (f *files) run(ctx context.Context, t teller) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("cannot watch files: %w", os.NewSyscallError("inotify_init1", err))
	}
	// The runtime's poller waits for it: no thread does.
	notify := os.NewFile(uintptr(fd), "inotify")
	stop := context.AfterFunc(ctx, func() { _ = notify.Close() })
	defer stop()
	f.mu.Lock()
	f.notify = notify
	f.dirs = make(map[int32]*dir)
	f.place()
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.notify = nil
		f.mu.Unlock()
		_ = notify.Close()
	}()
	t.lost() // whatever happened before
	buf := make([]byte, readSize/4)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return fmt.Errorf("cannot watch files: %w", err)
		}
		names, lost := f.handle(buf[:n])
		if lost {
			t.lost()
		}
		if len(names) > 0 {
			t.touch(names...)
		}
	}
}

// handle takes what the kernel wrote, as in inotify(7), and returns whom it is about.
func (f *files) handle(b []byte) (names []string, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	again := false
	tell := func(more []string) {
		for _, name := range more {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if size > len(b) {
			return names, true
		}
		entry := strings.TrimRight(string(b[unix.SizeofInotifyEvent:size]), "\x00")
		b = b[size:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			again, lost = true, true
			continue
		}
		d := f.dirs[wd]
		if d == nil {
			continue
		}
		if mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED) != 0 {
			for _, all := range d.entries {
				tell(all)
			}
			again = true
			if mask&unix.IN_IGNORED != 0 {
				delete(f.dirs, wd)
			}
			continue
		}
		tell(d.entries[""])
		if entry != "" {
			tell(d.entries[entry])
			// A directory that came may hold what comes next, and one that went held what was watched.
			again = again || d.steps[entry] || len(d.entries[entry]) > 0 && mask&(unix.IN_ISDIR|unix.IN_CREATE|unix.IN_MOVED_TO) != 0
		}
	}
	if again {
		f.place()
	}
	return names, lost
}

// place has the kernel watch the directories that the names are in now. What comes to be while it looks is seen in the next
// round: watches come before the look.
func (f *files) place() {
	for range maxRounds {
		if !f.placeOnce() {
			return
		}
	}
}

// placeOnce reports whether a directory was watched that was not before.
func (f *files) placeOnce() (more bool) {
	wanted := make(map[string]*dir)
	at := func(path, entry, name string, step bool) {
		d := wanted[path]
		if d == nil {
			if len(wanted) == maxDirs {
				return
			}
			d = &dir{entries: make(map[string][]string), steps: make(map[string]bool)}
			wanted[path] = d
		}
		if !slices.Contains(d.entries[entry], name) {
			d.entries[entry] = append(d.entries[entry], name)
		}
		d.steps[entry] = d.steps[entry] || step
	}
	for _, name := range f.names {
		f.locate(filepath.Join(f.root, name), name, at)
	}
	dirs := make(map[int32]*dir, len(wanted))
	for path, d := range wanted {
		wd, err := addWatch(f.notify, path)
		if err != nil {
			more = more || errors.Is(err, fs.ErrNotExist) // gone meanwhile
			continue
		}
		if f.dirs[wd] == nil && dirs[wd] == nil {
			more = true
		}
		if other := dirs[wd]; other != nil {
			for entry, names := range other.entries {
				d.entries[entry] = append(d.entries[entry], names...)
				d.steps[entry] = d.steps[entry] || other.steps[entry]
			}
		}
		dirs[wd] = d
	}
	for wd := range f.dirs {
		if dirs[wd] == nil {
			removeWatch(f.notify, wd)
		}
	}
	f.dirs = dirs
	return more
}

// locate finds the directories by which a path is watched: its own, or the nearest above; itself where it is one; and that of
// what it links to.
func (f *files) locate(path, name string, at func(dir, entry, name string, step bool)) {
	parent, entry, step := filepath.Dir(path), filepath.Base(path), false
	for !isDir(parent) && len(parent) > len(f.root) {
		parent, entry, step = filepath.Dir(parent), filepath.Base(parent), true
	}
	at(parent, entry, name, step)
	if step {
		return
	}
	info, err := os.Lstat(path)
	switch {
	case err != nil:
	case info.IsDir():
		at(path, "", name, false)
	case info.Mode()&fs.ModeSymlink != 0:
		if target, err := filepath.EvalSymlinks(path); err == nil {
			at(filepath.Dir(target), filepath.Base(target), name, false)
		}
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func addWatch(notify *os.File, path string) (wd int32, err error) {
	raw, err := notify.SyscallConn()
	if err != nil {
		return 0, err
	}
	if controlled := raw.Control(func(fd uintptr) {
		var n int
		n, err = unix.InotifyAddWatch(int(fd), path, events)
		wd = int32(n)
	}); controlled != nil {
		return 0, controlled
	}
	return wd, err
}

// removeWatch may fail for a directory that is gone, whose watch is gone with it.
func removeWatch(notify *os.File, wd int32) {
	if raw, err := notify.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) })
	}
}
