//go:build amd64 || arm64

package zone

import "unsafe"

// prefetch has the processor fetch the cache line of an address without waiting for it. An ordinary read would wait: the
// processor works on while a few hundred instructions behind it have not ended, which is less than memory takes.
//
//go:noescape
func prefetch(p unsafe.Pointer)
