package download

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/command"
	"github.com/provisionr/provisionr/internal/errs"
)

// unpack makes a fresh directory of a verified archive, and puts it in the target's place at once.
func (d *download) unpack(ctx context.Context, dir *os.Root, base, part string, own host.Owner) (err error) {
	fresh := "." + base + "." + rand.Text()[:8] + ".new"
	if err := dir.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	// After the exchange it is the old tree that is removed.
	defer func() { err = errors.Join(err, dir.RemoveAll(fresh)) }()
	if err := d.fill(ctx, dir, fresh, base, part, own); err != nil {
		return err
	}
	if err := d.claim(dir, base); err != nil {
		return err
	}
	if err := swap(dir, fresh, base); err != nil {
		return err
	}
	return dir.Remove(part)
}

// claim notes that the directory is ours, before it is in its place: one that has no note is somebody else's, and is not replaced.
func (d *download) claim(dir *os.Root, base string) error {
	d.mu.Lock()
	n, err := d.readNote()
	d.mu.Unlock()
	if err != nil || n != nil {
		return err
	}
	empty, err := isEmpty(dir, base)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !empty:
		return errs.New(errs.Conflict, "cannot replace %s: it was made meanwhile, and not by this", d.want.Path)
	}
	return d.save(&note{Path: d.want.Path, Tree: true})
}

// fill unpacks into the directory, and makes it durable.
func (d *download) fill(ctx context.Context, dir *os.Root, fresh, base, part string, own host.Owner) error {
	root, err := dir.OpenRoot(fresh)
	if err != nil {
		return err
	}
	defer root.Close()
	t := &tree{root: root, strip: int(d.want.Strip), left: d.limits.bytes, owner: own}
	f, kind, err := d.archive(ctx, dir, base, part)
	if err != nil {
		return err
	}
	err = errors.Join(t.extract(ctx, f, kind), f.Close())
	if err != nil {
		return err
	}
	top, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(top.Chown(own.UID, own.GID), top.Chmod(d.mode()), unix.Syncfs(int(top.Fd())), top.Close())
}

// archive opens the archive. One that only an outside program reads is decompressed into a file without a name first.
func (d *download) archive(ctx context.Context, dir *os.Root, base, part string) (*os.File, string, error) {
	f, err := dir.Open(part)
	if err != nil {
		return nil, "", err
	}
	first, err := head(f)
	if err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	kind := kindOf(first)
	if kind != "xz" && kind != "zstd" {
		return f, kind, nil
	}
	plain := "." + base + "." + rand.Text()[:8] + ".tar"
	out, err := dir.OpenFile(plain, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	defer f.Close()
	// Its name is not needed: the program gets both files by their descriptors here, so that nobody who may write to a
	// directory on the way can put another in their place.
	if err := dir.Remove(plain); err != nil {
		return nil, "", errors.Join(err, out.Close())
	}
	descriptor := func(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }
	// ulimit bounds the file that comes of it, in blocks of 512 bytes.
	script := fmt.Sprintf(`ulimit -f %d; exec %s -dc <"$1" >"$2"`, d.limits.bytes/512, kind)
	r, err := d.host.Commands.Run(ctx, host.Command{Path: "sh", Args: []string{"-c", script, "sh", descriptor(f), descriptor(out)}, Timeout: d.limits.time})
	if err != nil {
		return nil, "", errors.Join(errs.New(errs.Unavailable, "cannot decompress: %w", err), out.Close())
	}
	if r.Exit != 0 {
		e := errs.New(errs.Internal, "cannot decompress with %s: exit %d: %s", kind, r.Exit, command.Tail(r))
		if r.Exit == 127 {
			e = e.WithHint("add package %s to the pool", map[string]string{"xz": "xz-utils", "zstd": "zstd"}[kind])
		}
		return nil, "", errors.Join(e, out.Close())
	}
	return out, "tar", nil
}

// swap puts fresh in the target's place, and what was there in fresh's.
func swap(dir *os.Root, fresh, base string) error {
	_, err := dir.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		err = dir.Rename(fresh, base)
	} else if err == nil {
		var f *os.File
		if f, err = dir.Open("."); err == nil {
			err = errors.Join(unix.Renameat2(int(f.Fd()), fresh, int(f.Fd()), base, unix.RENAME_EXCHANGE), f.Close())
		}
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}
