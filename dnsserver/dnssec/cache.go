package dnssec

import (
	"crypto/sha256"
	"sync"
)

// signature is r and s (RFC 6605 section 4).
type signature = [2 * scalarSize]byte

// digestOf names a signature: who signs what.
type digestOf struct {
	sum [sha256.Size]byte
	key *Key
}

// cache remembers signatures, at most twice size: what was used since the last half was thrown away stays.
type cache struct {
	size       int
	mu         sync.Mutex
	young, old map[digestOf]signature
}

func (c *cache) get(d digestOf) (signature, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.young[d]
	if ok {
		return s, true
	}
	if s, ok = c.old[d]; ok {
		c.putLocked(d, s)
	}
	return s, ok
}

func (c *cache) put(d digestOf, s signature) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(d, s)
}

func (c *cache) putLocked(d digestOf, s signature) {
	if c.young == nil || len(c.young) >= c.size {
		c.old, c.young = c.young, make(map[digestOf]signature)
	}
	c.young[d] = s
}
