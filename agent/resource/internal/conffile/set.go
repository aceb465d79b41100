package conffile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

// StateDir is where the agent keeps what it must remember over a restart.
const StateDir = "/var/lib/provisionr-agent"

// Set is several files that some program reads together.
type Set struct {
	host    *host.Host
	files   []File
	seen    []Seen
	pending string
}

// NewSet makes a set of files. Pending names what must be told of a change, such as "resolver"; see [Set.Apply].
func NewSet(h *host.Host, pending string, files ...File) *Set {
	return &Set{host: h, files: files, seen: make([]Seen, len(files)), pending: StateDir + "/" + pending + ".pending"}
}

// Check returns what is different in any of the files, or "".
func (s *Set) Check() (string, error) {
	var diffs []string
	for i := range s.files {
		d, err := Check(s.host, &s.files[i], &s.seen[i])
		if err != nil {
			return "", err
		}
		diffs = append(diffs, d)
	}
	if s.interrupted() {
		diffs = append(diffs, "the last change of "+s.files[0].Path+" was not taken up yet")
	}
	return textdiff.Join(diffs...), nil
}

// Apply writes the files that differ, and then calls reload if any did. A note on disk makes sure of the reload: if the
// agent dies in between, or reload fails, Check goes on to report it. A nil reload needs no note.
func (s *Set) Apply(reload func() error) error {
	var differ []*File
	for i := range s.files {
		d, err := Check(s.host, &s.files[i], &s.seen[i])
		if err != nil {
			return err
		}
		if d != "" {
			differ = append(differ, &s.files[i])
		}
	}
	if len(differ) == 0 && !s.interrupted() {
		return nil
	}
	note := File{Path: s.pending, Mode: 0o600}
	if reload != nil {
		if err := Apply(s.host, &note); err != nil {
			return err
		}
	}
	for _, f := range differ {
		if err := Apply(s.host, f); err != nil {
			return err
		}
	}
	if reload == nil {
		return nil
	}
	if err := reload(); err != nil {
		return err
	}
	note.Absent = true
	return Apply(s.host, &note)
}

func (s *Set) interrupted() bool { return Exists(s.host, s.pending) }

// Exists reports whether there is something at a path, be it a dangling link.
func Exists(h *host.Host, name string) bool {
	_, err := h.StatPlain(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err == nil
	}
	dir, base, err := Parent(h, name, false)
	if err != nil {
		return false
	}
	defer dir.Close()
	_, err = dir.Lstat(base)
	return err == nil
}

// List returns the names of the files in a directory that match a pattern of path.Match, in order. A missing directory has none.
func List(h *host.Host, dir, pattern string) ([]string, error) {
	return list(h, dir, pattern, func(e fs.DirEntry) bool { return !e.IsDir() })
}

// Regular is List without links, and without all else that is no regular file.
func Regular(h *host.Host, dir, pattern string) ([]string, error) {
	return list(h, dir, pattern, func(e fs.DirEntry) bool { return e.Type().IsRegular() })
}

func list(h *host.Host, dir, pattern string, counts func(fs.DirEntry) bool) ([]string, error) {
	entries, err := readDir(h, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if ok, err := path.Match(pattern, e.Name()); err == nil && ok && counts(e) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// readDir returns what is in a directory, in any order.
func readDir(h *host.Host, dir string) ([]fs.DirEntry, error) {
	fd, err := h.OpenPlain(dir, syscall.O_RDONLY|syscall.O_DIRECTORY)
	if err == nil {
		d := os.NewFile(uintptr(fd), dir)
		defer d.Close()
		return d.ReadDir(-1)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	root, err := openDir(h, dir, false)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return fs.ReadDir(root.FS(), ".")
}

// Stat looks at what is at a path, be it a link.
func Stat(h *host.Host, name string) (syscall.Stat_t, error) {
	st, err := h.StatPlain(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return st, err
	}
	dir, _, info, err := lookup(h, name)
	defer closeDir(dir)
	if err != nil {
		return st, err
	}
	if info == nil {
		return st, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return *s, nil
	}
	return st, fmt.Errorf("cannot look at %s: no inode", name)
}

// IsLink reports whether there is a symbolic link at a path.
func IsLink(h *host.Host, name string) bool {
	st, err := h.StatPlain(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err == nil && st.Mode&syscall.S_IFMT == syscall.S_IFLNK
	}
	dir, base, err := Parent(h, name, false)
	if err != nil {
		return false
	}
	defer dir.Close()
	info, err := dir.Lstat(base)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}
