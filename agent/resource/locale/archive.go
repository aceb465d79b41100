package locale

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
)

const (
	// archiveMagic begins a locale archive; its head and the places in it are those of locarchive.h of the GNU C library:
	// words of 32 bits in the machine's byte order, of which the sixth and seventh say where the names are.
	archiveMagic = 0xde020109
	headSize     = 14 * 4
	offsetAt     = 5 * 4
	usedAt       = 6 * 4
	// maxNames bounds the names: those of all locales that there are take some 15 KiB.
	maxNames = 1 << 20
)

// archived reports whether a locale archive has a locale of the name. What is no archive has none.
func archived(r io.ReaderAt, name string) (bool, error) {
	head := make([]byte, headSize)
	if n, err := r.ReadAt(head, 0); err != nil && (err != io.EOF || n < headSize) {
		if err == io.EOF {
			return false, nil
		}
		return false, err
	}
	if binary.NativeEndian.Uint32(head) != archiveMagic {
		return false, nil
	}
	offset, used := binary.NativeEndian.Uint32(head[offsetAt:]), binary.NativeEndian.Uint32(head[usedAt:])
	names := make([]byte, min(used, maxNames))
	n, err := r.ReadAt(names, int64(offset))
	if err != nil && err != io.EOF {
		return false, err
	}
	return slices.ContainsFunc(bytes.Split(names[:n], []byte{0}), func(b []byte) bool { return string(b) == name }), nil
}
