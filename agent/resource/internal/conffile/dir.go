package conffile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/provisionr/provisionr/agent/host"
)

// maxLinks bounds the symbolic links in one path, as the kernel does (path_resolution(7)).
const maxLinks = 40

// Parent opens the directory of an absolute path and returns it with the path's last element. With create, directories that
// are missing are made with mode 0755. The caller closes the directory.
func Parent(h *host.Host, name string, create bool) (*os.Root, string, error) {
	clean := path.Clean("/" + name)
	if clean == "/" {
		return nil, "", fmt.Errorf("cannot open %q: not a file's path", name)
	}
	dir, err := openDir(h, path.Dir(clean), create)
	if err != nil {
		return nil, "", err
	}
	return dir, path.Base(clean), nil
}

// openDir walks to a directory one element at a time: os.Root alone would refuse every absolute link, such as those of
// update-alternatives(1).
func openDir(h *host.Host, name string, create bool) (*os.Root, error) {
	cur, err := h.Open()
	if err != nil {
		return nil, err
	}
	w := walk{host: h, cur: cur, todo: elements(name)}
	for len(w.todo) > 0 && err == nil {
		element := w.todo[0]
		w.todo = w.todo[1:]
		err = w.step(element, create)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open directory %s: %w", name, err), w.cur.Close())
	}
	return w.cur, nil
}

// walk is a way through directories: done was walked without a link and led to cur, todo is still to go.
type walk struct {
	host       *host.Host
	cur        *os.Root
	done, todo []string
	links      int
}

func (w *walk) step(element string, create bool) error {
	if element == ".." {
		w.todo = slices.Concat(w.done[:max(0, len(w.done)-1)], w.todo)
		return w.restart()
	}
	info, err := w.cur.Lstat(element)
	if errors.Is(err, fs.ErrNotExist) && create {
		if err = mkdir(w.cur, element); err == nil {
			info, err = w.cur.Lstat(element)
		}
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return w.follow(element, info)
	}
	next, err := w.cur.OpenRoot(element)
	if err != nil {
		return err
	}
	// The directory may have been exchanged for a link since Lstat.
	if opened, err := next.Stat("."); err != nil || !os.SameFile(info, opened) {
		return errors.Join(fmt.Errorf("%s changed meanwhile", element), err, next.Close())
	}
	old := w.cur
	w.cur, w.done = next, append(w.done, element)
	return old.Close()
}

// follow goes on along a link, if it belongs to the agent's own user.
func (w *walk) follow(element string, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("refusing to follow %s, a symbolic link of another user", element)
	}
	if w.links++; w.links > maxLinks {
		return fmt.Errorf("more than %d symbolic links", maxLinks)
	}
	target, err := w.cur.Readlink(element)
	if err != nil {
		return err
	}
	w.todo = slices.Concat(elements(target), w.todo)
	if path.IsAbs(target) {
		return w.restart()
	}
	return nil
}

// restart goes back to the host's root.
func (w *walk) restart() error {
	root, err := w.host.Open()
	if err != nil {
		return err
	}
	old := w.cur
	w.cur, w.done = root, nil
	return old.Close()
}

func mkdir(dir *os.Root, name string) error {
	if err := dir.Mkdir(name, 0o755); err != nil {
		return err
	}
	// The umask may have taken bits away.
	return dir.Chmod(name, 0o755)
}

// elements splits a path; "." and empty elements are left out.
func elements(name string) []string {
	var list []string
	for e := range strings.SplitSeq(name, "/") {
		if e != "" && e != "." {
			list = append(list, e)
		}
	}
	return list
}

// Read returns the content of the file at a path, of at most max bytes. A symbolic link in its own place is followed only
// below the file's directory.
func Read(h *host.Host, name string, max int64) ([]byte, error) {
	b, err := h.ReadPlain(name, max+1)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	dir, base, err := Parent(h, name, false)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return read(dir, base, name, max)
}
