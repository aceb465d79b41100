package swap

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	// signature ends the first page of a swap area, whose size is that of the kernel's memory pages (mkswap(8)).
	signature = "SWAPSPACE2"
	// block is how much is written at a time where a file system cannot allocate without writing.
	block = 1 << 20
	// spare is left free on the file system.
	spare = 64 << 20
)

// pages are the sizes that kernels have.
var pages = []int64{4 << 10, 16 << 10, 64 << 10}

// swapFile is what is in the place of the swap file.
type swapFile struct {
	exists, swap bool
	size         int64
	mode         fs.FileMode
}

func look(h *host.Host, path string) (swapFile, error) {
	dir, base, err := conffile.Parent(h, path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return swapFile{}, nil
	}
	if err != nil {
		return swapFile{}, err
	}
	defer dir.Close()
	info, err := dir.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return swapFile{}, nil
	}
	if err != nil || !info.Mode().IsRegular() {
		return swapFile{exists: true}, err
	}
	f, err := dir.OpenFile(base, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return swapFile{}, err
	}
	defer f.Close()
	found := swapFile{exists: true, size: info.Size(), mode: info.Mode().Perm()}
	for _, page := range pages {
		b := make([]byte, len(signature))
		if _, err := f.ReadAt(b, page-int64(len(b))); err == nil && string(b) == signature {
			found.swap = true
		}
	}
	return found, nil
}

// allocate makes a file of a size without holes, which the kernel refuses to swap to.
func allocate(ctx context.Context, dir *os.Root, name string, size int64) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err == nil && int64(st.Bavail)*st.Bsize < size+spare {
		return errs.New(errs.Exhausted, "its file system has %d MiB left, and %d MiB are needed", int64(st.Bavail)*st.Bsize>>20, (size+spare)>>20)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = fill(ctx, f, size)
	}
	if err == nil {
		err = f.Sync()
	}
	return err
}

func fill(ctx context.Context, f *os.File, size int64) error {
	zeros := make([]byte, block)
	for left := size; left > 0; left -= block {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := f.Write(zeros[:min(left, block)]); err != nil {
			return err
		}
	}
	return nil
}
