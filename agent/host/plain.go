package host

import (
	"io/fs"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// sizeHint is what a read without a known size begins with: files of /proc say that they have none.
const sizeHint = 1 << 10

// OpenPlain opens what is at an absolute path with flags of open(2), in one step, where no symbolic link leads there
// (RESOLVE_NO_SYMLINKS in openat2(2)): such a path cannot leave the root. It makes nothing. With unix.O_PATH and
// unix.O_NOFOLLOW a link in the last place is opened itself. That nothing is there is fs.ErrNotExist; any other error says no
// more than that a longer way has to be taken, as on a kernel without openat2. The caller closes the descriptor.
func (h Host) OpenPlain(name string, flags int) (int, error) {
	if !path.IsAbs(name) {
		name = "/" + name
	}
	name = path.Clean(name)
	if h.Root != "/" {
		name = h.Root + name
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return -1, &fs.PathError{Op: "openat2", Path: name, Err: err}
	}
	return fd, nil
}

// StatPlain looks at what is at a path, with the errors of OpenPlain. It opens nothing that would notice.
func (h Host) StatPlain(name string) (syscall.Stat_t, error) {
	var st syscall.Stat_t
	fd, err := h.OpenPlain(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return st, err
	}
	err = syscall.Fstat(fd, &st)
	_ = syscall.Close(fd) // it has nothing to lose
	return st, err
}

// ReadPlain returns the first most bytes of a file at a path, with the errors of OpenPlain. A pipe without a writer has none.
func (h Host) ReadPlain(name string, most int64) ([]byte, error) {
	fd, err := h.OpenPlain(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, err
	}
	room := int64(sizeHint)
	if st.Size > 0 {
		room = min(st.Size, most) + 1 // a byte more, so that one short read is the end
	}
	data := make([]byte, 0, room)
	for int64(len(data)) < most {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		free := data[len(data):cap(data)]
		free = free[:min(int64(len(free)), most-int64(len(data)))]
		n, err := syscall.Read(fd, free)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		}
		data = data[:len(data)+n]
		if n == 0 || n < len(free) && int64(len(data)) == st.Size {
			break
		}
	}
	return data, nil
}
