// Package netlink speaks the kernel's netlink protocol (netlink(7)) for resources: requests with their acknowledgement,
// listings, and attributes. What the messages mean is their callers'.
//
// A connection belongs to the network namespace of the thread that opened it, and to one goroutine at a time.
package netlink
