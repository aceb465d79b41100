//go:build !amd64 && !arm64

package zone

import "unsafe"

// prefetch does nothing here: what it is for is only slower without.
func prefetch(unsafe.Pointer) {}
