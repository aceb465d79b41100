package dnsserver

import (
	"net/netip"
	"sync"
)

// conns counts the TCP connections, so that none is opened beyond the bounds.
type conns struct {
	max int

	mu   sync.Mutex
	open int
	// of counts those of unknown sources, each of which may have a quarter of all.
	of map[netip.Addr]int
}

// add reports whether one more connection of a source may be open, and counts it.
func (c *conns) add(from netip.Addr, known bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open >= c.max || !known && c.of[from] >= max(c.max/4, 1) {
		return false
	}
	c.open++
	if !known {
		c.of[from]++
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
	if c.of[from]--; c.of[from] == 0 {
		delete(c.of, from)
	}
}

// scarce reports whether there are few left: then idle ones have to make room.
func (c *conns) scarce() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.max >= 4 && c.open > c.max/4*3
}
