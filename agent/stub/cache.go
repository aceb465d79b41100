package stub

import (
	"container/list"
	"slices"
	"sync"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

const (
	maxRemembered = 1024
	maxEntry      = 4096
)

// cache remembers the newest answers of servers; the least recently used goes when it is full.
type cache struct {
	mu      sync.Mutex
	entries map[string]*list.Element
	order   *list.List
}

type entry struct {
	key    string
	answer []byte
}

func newCache() cache { return cache{entries: map[string]*list.Element{}, order: list.New()} }

// put remembers a whole answer; one that is truncated, malformed or too large is not worth it.
func (c *cache) put(key string, answer []byte) {
	const truncated = 0x02
	if len(answer) > maxEntry || answer[2]&truncated != 0 {
		return
	}
	answer = slices.Clone(answer)
	if !zone.CapTTL(answer, staleTTL) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		e.Value = entry{key, answer}
		c.order.MoveToFront(e)
		return
	}
	if c.order.Len() >= maxRemembered {
		oldest := c.order.Back()
		delete(c.entries, oldest.Value.(entry).key)
		c.order.Remove(oldest)
	}
	c.entries[key] = c.order.PushFront(entry{key, answer})
}

// get returns the answer, which must not be changed, or nil.
func (c *cache) get(key string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(entry).answer
}
