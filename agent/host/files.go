package host

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// maxRead bounds what ReadFile takes into memory.
const maxRead = 64 << 20

// Attributes of a written file.
type Attributes struct {
	// Mode is the permission bits, with setuid, setgid and sticky as fs.FileMode has them.
	// Zero keeps the mode of the present file; a new file gets 0644.
	Mode fs.FileMode
	// Owner nil keeps the owner of the present file; a new file belongs to the agent's user.
	Owner *Owner
}

// Owner is a numeric user and group.
type Owner struct {
	UID, GID int
}

// Open opens the host's root directory. No path opened through it leaves it, also not by a symbolic link. The caller closes it.
func (h Host) Open() (*os.Root, error) {
	root, err := os.OpenRoot(h.Root)
	if err != nil {
		return nil, fmt.Errorf("cannot open root %s: %w", h.Root, err)
	}
	return root, nil
}

// ReadFile returns the content of the file at an absolute path, at most 64 MiB.
func (h Host) ReadFile(name string) ([]byte, error) {
	data, err := h.ReadPlain(name, maxRead+1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		data, err = h.readFile(name)
	}
	if err != nil {
		return nil, err
	}
	if len(data) > maxRead {
		return nil, fmt.Errorf("cannot read %s: larger than %d bytes", name, maxRead)
	}
	return data, nil
}

// readFile reads a file that links within the root may lead to.
func (h Host) readFile(name string) ([]byte, error) {
	root, err := h.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(relative(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRead+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return data, nil
}

// WriteFile replaces the file at an absolute path in one step: a reader, or a crash, finds the old content or the new,
// never a part. The directory must exist. A symbolic link at the path is replaced, not followed.
func (h Host) WriteFile(name string, data []byte, a Attributes) error {
	root, err := h.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	return WriteFile(root, relative(name), data, a)
}

// MkdirAll makes a directory and its parents.
func (h Host) MkdirAll(name string, mode fs.FileMode) error {
	root, err := h.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	return root.MkdirAll(relative(name), mode)
}

// Remove removes the file at an absolute path. A file that does not exist is no error.
func (h Host) Remove(name string) error {
	root, err := h.Open()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Remove(relative(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Lock waits until this process alone holds the lock that the file at an absolute path stands for; the file is made with its
// directory. A process that ends lets go of it (flock(2)).
func (h Host) Lock(name string) (release func(), err error) {
	root, err := h.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := root.MkdirAll(path.Dir(relative(name)), 0o700); err != nil {
		return nil, err
	}
	f, err := root.OpenFile(relative(name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(os.NewSyscallError("flock", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// WriteFile is Host.WriteFile below an open root, with a name relative to it.
func WriteFile(root *os.Root, name string, data []byte, a Attributes) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot write %s: %w", name, err)
		}
	}()
	mode, owner := a.Mode, a.Owner
	if old, err := root.Lstat(name); err == nil && old.Mode().IsRegular() {
		if mode == 0 {
			mode = old.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
		}
		if st, ok := old.Sys().(*syscall.Stat_t); ok && owner == nil {
			owner = &Owner{int(st.Uid), int(st.Gid)}
		}
	}
	if mode == 0 {
		mode = 0o644
	}
	temp := path.Join(path.Dir(name), "."+path.Base(name)+"."+rand.Text()[:8]+".tmp")
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := fill(f, data, mode, owner); err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	if err := root.Rename(temp, name); err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return syncDir(root, path.Dir(name))
}

// fill writes and closes f. The owner comes before the mode, because chown clears setuid.
func fill(f *os.File, data []byte, mode fs.FileMode, owner *Owner) error {
	_, err := f.Write(data)
	if err == nil && owner != nil {
		err = f.Chown(owner.UID, owner.GID)
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// relative turns an absolute path into one below the root. os.Root refuses what leads out of it.
func relative(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}
