package stub

import (
	"container/list"
	"encoding/binary"
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

// put remembers a whole answer but for its EDNS options, which are for one client; one that is truncated, malformed or too
// large is not worth it.
func (c *cache) put(key string, answer []byte) {
	const truncated = 0x02
	if len(answer) > maxEntry || answer[2]&truncated != 0 {
		return
	}
	answer = slices.Clone(answer)
	if !zone.CapTTL(answer, staleTTL) {
		return
	}
	if answer = withoutOptions(answer); answer == nil {
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

// withoutOptions returns a well-formed answer without the options of the OPT record that ends it (RFC 6891); nil where one
// stands elsewhere.
func withoutOptions(answer []byte) []byte {
	const opt = 41
	off := headerSize
	for range binary.BigEndian.Uint16(answer[4:]) {
		off = skipName(answer, off) + 4
	}
	records := 0
	for at := 6; at < headerSize; at += 2 {
		records += int(binary.BigEndian.Uint16(answer[at:]))
	}
	for i := range records {
		fields := skipName(answer, off)
		data := fields + 10
		off = data + int(binary.BigEndian.Uint16(answer[fields+8:]))
		switch {
		case binary.BigEndian.Uint16(answer[fields:]) != opt:
		case i < records-1:
			return nil
		default:
			clear(answer[data-2 : data])
			return answer[:data]
		}
	}
	return answer[:off]
}

// skipName returns the offset behind a name of a well-formed message.
func skipName(msg []byte, off int) int {
	for ; msg[off] != 0; off += 1 + int(msg[off]) {
		if msg[off] >= 0xc0 {
			return off + 2
		}
	}
	return off + 1
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
