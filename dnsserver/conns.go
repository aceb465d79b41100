package dnsserver

import (
	"net/netip"
	"sync"
)

// conns counts the TCP connections, so that none is opened beyond the bounds.
type conns struct {
	max int

	mu sync.Mutex
	// open counts all, unknown those of unknown sources, which leave a quarter to known ones.
	open, unknown int
	// of counts those of each network of unknown sources, which may have a quarter of all.
	of map[netip.Prefix]int
}

// add reports whether one more connection of a source may be open, and counts it.
func (c *conns) add(from netip.Addr, known bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	net := networkOf(from)
	if c.open >= c.max || !known && (c.unknown >= c.max-c.max/4 || c.of[net] >= max(c.max/4, 1)) {
		return false
	}
	c.open++
	if !known {
		c.unknown++
		c.of[net]++
	}
	return true
}

// remove forgets a connection that was added.
func (c *conns) remove(from netip.Addr, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if known {
		return
	}
	net := networkOf(from)
	c.unknown--
	if c.of[net]--; c.of[net] == 0 {
		delete(c.of, net)
	}
}

// scarce reports whether there are few left: then idle ones have to make room.
func (c *conns) scarce() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.max >= 4 && c.open >= c.max-c.max/4
}
