package conffile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
	"github.com/provisionr/provisionr/internal/errs"
)

// lookup opens the directory of a path and looks at what is there. Info is nil where nothing is; dir then may be nil.
func lookup(h *host.Host, name string) (dir *os.Root, base string, info fs.FileInfo, err error) {
	dir, base, err = Parent(h, name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil, nil
	}
	if err != nil {
		return nil, "", nil, err
	}
	info, err = dir.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return dir, base, nil, nil
	}
	if err != nil {
		return nil, "", nil, errors.Join(fmt.Errorf("cannot look at %s: %w", name, err), dir.Close())
	}
	return dir, base, info, nil
}

func closeDir(dir *os.Root) {
	if dir != nil {
		// Nothing was written through it.
		_ = dir.Close()
	}
}

// CheckDir returns how a directory differs from what f wants of one, or "". Of f, Path, Mode (zero means 0755) and Owner
// count. What is in the place of the directory is never taken away: it is an error.
func CheckDir(h *host.Host, f *File) (string, error) {
	st, err := Stat(h, f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.Path + ": directory is missing", nil
	case err != nil:
		return "", err
	case st.Mode&syscall.S_IFMT != syscall.S_IFDIR:
		return "", errs.New(errs.Conflict, "cannot make directory %s: there is something else", f.Path)
	}
	var diffs []string
	if own := f.owner(); int(st.Uid) != own.UID || int(st.Gid) != own.GID {
		diffs = append(diffs, fmt.Sprintf("%s: owner %d:%d, wanted %d:%d", f.Path, st.Uid, st.Gid, own.UID, own.GID))
	}
	if got, want := Mode(st.Mode), f.dirMode(); got != want {
		diffs = append(diffs, fmt.Sprintf("%s: mode %#o, wanted %#o", f.Path, unixMode(got), unixMode(want)))
	}
	return textdiff.Join(diffs...), nil
}

func (f *File) dirMode() fs.FileMode {
	if f.Mode == 0 {
		return 0o755
	}
	return f.Mode
}

// ApplyDir makes a directory, and gives it its mode and owner.
func ApplyDir(h *host.Host, f *File) error {
	dir, base, err := Parent(h, f.Path, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Mkdir(base, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot make directory %s: %w", f.Path, err)
	}
	named, err := dir.Lstat(base)
	if err != nil {
		return err
	}
	// Through the opened directory: its name may have become a link meanwhile.
	made, err := dir.OpenRoot(base)
	if err != nil {
		return fmt.Errorf("cannot make directory %s: %w", f.Path, err)
	}
	defer made.Close()
	if opened, err := made.Stat("."); err != nil || !os.SameFile(named, opened) {
		return errors.Join(errs.New(errs.Conflict, "cannot make directory %s: there is something else", f.Path), err)
	}
	own := f.owner()
	if err := errors.Join(made.Chown(".", own.UID, own.GID), made.Chmod(".", f.dirMode())); err != nil {
		return fmt.Errorf("cannot change directory %s: %w", f.Path, err)
	}
	return nil
}

// CheckLink returns how a symbolic link differs from one to target, or "". The owner counts where it is not nil. A
// directory in its place is an error; anything else is replaced.
func CheckLink(h *host.Host, name, target string, owner *host.Owner) (string, error) {
	dir, base, info, err := lookup(h, name)
	defer closeDir(dir)
	switch {
	case err != nil:
		return "", err
	case info == nil:
		return name + ": missing\n+link to " + target, nil
	case info.IsDir():
		return "", errs.New(errs.Conflict, "cannot make link %s: there is a directory", name)
	case info.Mode()&fs.ModeSymlink == 0:
		return name + ": not a symbolic link\n+link to " + target, nil
	}
	now, err := dir.Readlink(base)
	if err != nil {
		return "", fmt.Errorf("cannot read link %s: %w", name, err)
	}
	if now != target {
		return name + ":\n-link to " + now + "\n+link to " + target, nil
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && owner != nil && (int(st.Uid) != owner.UID || int(st.Gid) != owner.GID) {
		return fmt.Sprintf("%s: owner %d:%d, wanted %d:%d", name, st.Uid, st.Gid, owner.UID, owner.GID), nil
	}
	return "", nil
}

// ApplyLink makes a symbolic link in one step: a reader finds what was there before, or the link.
func ApplyLink(h *host.Host, name, target string, owner *host.Owner) error {
	dir, base, err := Parent(h, name, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	temp := "." + base + "." + rand.Text()[:8] + ".tmp"
	if err := dir.Symlink(target, temp); err != nil {
		return fmt.Errorf("cannot make link %s: %w", name, err)
	}
	if owner != nil {
		err = dir.Lchown(temp, owner.UID, owner.GID)
	}
	if err == nil {
		err = dir.Rename(temp, base)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot make link %s: %w", name, err), dir.Remove(temp))
	}
	return nil
}

// CheckAbsent returns what is at a path where nothing shall be, or "". A directory that is not empty is an error. [Apply]
// of an absent File removes what this tells of.
func CheckAbsent(h *host.Host, name string) (string, error) {
	dir, base, info, err := lookup(h, name)
	defer closeDir(dir)
	switch {
	case err != nil || info == nil:
		return "", err
	case !info.IsDir():
		return name + ": exists, wanted absent", nil
	}
	entries, err := fs.ReadDir(dir.FS(), base)
	if err != nil {
		return "", fmt.Errorf("cannot look into %s: %w", name, err)
	}
	if len(entries) > 0 {
		return "", errs.New(errs.Conflict, "cannot remove %s: it is a directory that is not empty: it has %s", name, entries[0].Name())
	}
	return name + ": directory exists, wanted absent", nil
}

// Save returns what is at a path now, for a way back.
func Save(h *host.Host, name string) (converge.SavedFile, error) {
	saved := converge.SavedFile{Path: name}
	dir, base, info, err := lookup(h, name)
	defer closeDir(dir)
	switch {
	case err != nil:
		return saved, err
	case info == nil:
		saved.Absent = true
		return saved, nil
	case info.Mode()&fs.ModeSymlink != 0:
		saved.Link, err = dir.Readlink(base)
		return saved, err
	case !info.Mode().IsRegular():
		return saved, errs.New(errs.Conflict, "cannot save %s: not a regular file", name)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return saved, fmt.Errorf("cannot save %s: no inode", name)
	}
	saved.Mode, saved.UID, saved.GID = unixMode(info.Mode()&^fs.ModeType), int(st.Uid), int(st.Gid)
	saved.Content, err = read(dir, base, name, maxRead)
	return saved, err
}

// Restore puts back what Save found.
func Restore(h *host.Host, f converge.SavedFile) error {
	if f.Link != "" {
		return ApplyLink(h, f.Path, f.Link, nil)
	}
	return Apply(h, &File{Path: f.Path, Content: f.Content, Mode: Mode(f.Mode), Owner: &host.Owner{UID: f.UID, GID: f.GID}, Absent: f.Absent})
}
