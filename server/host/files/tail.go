package files

import (
	"errors"
	"os"
	"syscall"
)

// Tail returns the last bytes, at most limit, of a file that a machine may have written: it follows no link out of dir,
// and waits for nothing.
func Tail(dir, name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only read
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	data := make([]byte, min(info.Size(), limit))
	n, err := f.ReadAt(data, max(0, info.Size()-limit))
	if n < len(data) {
		return data[:n], err
	}
	return data, nil
}
