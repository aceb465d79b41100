package download

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/internal/errs"
)

const maxEntries = 1 << 18

// limits bound what an archive may become.
type limits struct {
	// bytes of all files together.
	bytes int64
	// time for an outside decompressor.
	time time.Duration
}

var defaultLimits = limits{bytes: 64 << 30, time: 20 * time.Minute}

// refused is an archive that is not what an honest one is.
func refused(format string, args ...any) error {
	return errs.New(errs.Denied, "the archive is refused: "+format, args...)
}

// tree is a directory that an archive is unpacked into. Nothing is written but through its root, which no link leads out of.
type tree struct {
	root    *os.Root
	strip   int
	left    int64
	entries int
	owner   host.Owner
	// dirs get their mode last: one without a write bit could not be filled.
	dirs []dirMode
}

type dirMode struct {
	name string
	mode fs.FileMode
}

// extract unpacks an archive of a kind that Go reads.
func (t *tree) extract(ctx context.Context, f *os.File, kind string) error {
	var err error
	switch kind {
	case "zip":
		err = t.zip(ctx, f)
	case "gzip":
		var gz *gzip.Reader
		if gz, err = gzip.NewReader(bufio.NewReader(f)); err == nil {
			err = t.tar(ctx, gz)
		}
	case "tar":
		err = t.tar(ctx, bufio.NewReader(f))
	default:
		err = refused("neither tar (plain, gzip, xz, zstd) nor zip")
	}
	if err != nil {
		return err
	}
	for i := len(t.dirs) - 1; i >= 0; i-- {
		if err := t.root.Chmod(t.dirs[i].name, t.dirs[i].mode); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) tar(ctx context.Context, r io.Reader) error {
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return refused("%w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.tarEntry(h, in); err != nil {
			return err
		}
	}
}

func (t *tree) tarEntry(h *tar.Header, in io.Reader) error {
	name, err := t.name(h.Name)
	if err != nil || name == "" {
		return err
	}
	mode := h.FileInfo().Mode().Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		return t.dir(name, mode)
	case tar.TypeReg:
		return t.file(name, mode, h.ModTime, in)
	case tar.TypeSymlink:
		return t.link(name, h.Linkname)
	case tar.TypeLink:
		target, err := t.name(h.Linkname)
		if err != nil {
			return err
		}
		if target == "" {
			return refused("%q links to what is left out", h.Name)
		}
		if err := t.parents(name); err != nil {
			return err
		}
		if info, err := t.root.Lstat(target); err != nil || !info.Mode().IsRegular() {
			return refused("%q links to %q, which is no file of it", h.Name, h.Linkname)
		}
		return t.root.Link(target, name)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return refused("%q is a device, a pipe or of unknown type %q", h.Name, h.Typeflag)
}

func (t *tree) zip(ctx context.Context, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	in, err := zip.NewReader(f, info.Size())
	if err != nil {
		return refused("%w", err)
	}
	for _, e := range in.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.zipEntry(e); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) zipEntry(e *zip.File) error {
	name, err := t.name(e.Name)
	if err != nil || name == "" {
		return err
	}
	mode := e.Mode()
	if mode.IsDir() {
		return t.dir(name, mode.Perm())
	}
	if mode.Type() != 0 && mode.Type() != fs.ModeSymlink {
		return refused("%q is a device, a pipe or a socket", e.Name)
	}
	r, err := e.Open()
	if err != nil {
		return refused("%w", err)
	}
	defer r.Close()
	if mode.Type() == fs.ModeSymlink {
		target, err := io.ReadAll(io.LimitReader(r, 4097))
		if err != nil || len(target) > 4096 {
			return refused("%q: link without a target", e.Name)
		}
		return t.link(name, string(target))
	}
	return t.file(name, mode.Perm(), e.Modified, r)
}

// name returns where an entry goes; "" says that it is stripped, or the root itself.
func (t *tree) name(raw string) (string, error) {
	if t.entries++; t.entries > maxEntries {
		return "", errs.New(errs.Exhausted, "the archive has more than %d entries", maxEntries)
	}
	if strings.ContainsAny(raw, "\x00\\") || path.IsAbs(raw) || len(raw) > 4096 {
		return "", refused("name %q", raw)
	}
	var parts []string
	for p := range strings.SplitSeq(raw, "/") {
		switch p {
		case "", ".":
		case "..":
			return "", refused("name %q leads out", raw)
		default:
			parts = append(parts, p)
		}
	}
	if len(parts) <= t.strip {
		return "", nil
	}
	name := path.Join(parts[t.strip:]...)
	if !filepath.IsLocal(name) {
		return "", refused("name %q", raw)
	}
	return name, nil
}

func (t *tree) parents(name string) error {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	for i := range len(dir) + 1 {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		info, err := t.root.Lstat(dir[:i])
		if errors.Is(err, fs.ErrNotExist) {
			if err = t.root.Mkdir(dir[:i], 0o755); err == nil {
				err = errors.Join(t.root.Chmod(dir[:i], 0o755), t.root.Lchown(dir[:i], t.owner.UID, t.owner.GID))
			}
			if err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return refused("%q is below something that is no directory", name)
		}
	}
	return nil
}

func (t *tree) dir(name string, mode fs.FileMode) error {
	if err := t.parents(name + "/x"); err != nil {
		return err
	}
	t.dirs = append(t.dirs, dirMode{name, mode})
	return nil
}

func (t *tree) file(name string, mode fs.FileMode, at time.Time, r io.Reader) (err error) {
	if err := t.parents(name); err != nil {
		return err
	}
	// A later entry of the same name replaces the earlier one, as in tar(1): never what a link leads to.
	if info, err := t.root.Lstat(name); err == nil && !info.IsDir() {
		if err := t.root.Remove(name); err != nil {
			return err
		}
	}
	f, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return refused("%w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(f, io.LimitReader(r, t.left+1))
	if t.left -= n; t.left < 0 {
		return errs.New(errs.Exhausted, "the archive is larger than allowed when unpacked")
	}
	if err != nil {
		return refused("%s: %w", name, err)
	}
	if err := errors.Join(f.Chown(t.owner.UID, t.owner.GID), f.Chmod(mode)); err != nil {
		return err
	}
	if at.Unix() > 0 && at.Before(time.Now()) {
		return t.root.Chtimes(name, at, at)
	}
	return nil
}

// link makes a symbolic link whose target stays in the tree. Two dots are allowed at the target's beginning only: there they
// climb real directories, while further on they could climb out of what another link leads to.
func (t *tree) link(name, target string) error {
	climbing, stays := true, target != "" && !path.IsAbs(target) && !strings.ContainsRune(target, 0)
	for p := range strings.SplitSeq(target, "/") {
		climbing = climbing && p == ".."
		stays = stays && (p != ".." || climbing)
	}
	if !stays || !filepath.IsLocal(path.Join(path.Dir(name), target)) {
		return refused("link %q leads to %q", name, target)
	}
	if err := t.parents(name); err != nil {
		return err
	}
	if err := t.root.Symlink(target, name); err != nil {
		return refused("%w", err)
	}
	return t.root.Lchown(name, t.owner.UID, t.owner.GID)
}

// head returns the first bytes of a file, from which the archive's kind is told.
func head(f *os.File) ([]byte, error) {
	buf := make([]byte, 512)
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("cannot read the archive: %w", err)
	}
	return buf[:n], nil
}
