package files

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lock is an exclusive lock on a file that other goroutines and processes respect. It ends with its process.
type Lock struct{ file *os.File }

// Acquire takes the lock of a file, which is created, and waits for it until ctx ends. Where another has it, waiting is
// called once; it may be nil. Who has a lock may remove its file: a waiter that got the lock of a removed file tries again.
func Acquire(ctx context.Context, path string, waiting func()) (*Lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && current(f, path) {
			return &Lock{f}, nil
		}
		if closed := f.Close(); closed != nil {
			return nil, closed
		}
		if err == nil {
			continue // of a removed file
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func current(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(mine, named)
}

// Release lets the next one have the lock. The file stays.
func (l *Lock) Release() { _ = l.file.Close() } // closing releases; there is nothing to lose

// Remove takes the file away and releases.
func (l *Lock) Remove() error {
	err := os.Remove(l.file.Name())
	l.Release()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
