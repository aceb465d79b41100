package zone

import (
	"slices"
	"strings"
)

// order is the names with data in canonical order (RFC 4034 section 6.1), as sortKeys, in chunks that versions share.
// Chunks are never empty. The origin, whose key is empty, is not in it.
type order []chunk

// A chunk is the number of its keys (2 octets), the end of each (2 octets), and the keys.
type chunk string

const (
	chunkMost  = 128
	chunkLeast = 32
)

func (c chunk) len() int { return int(c[0])<<8 | int(c[1]) }

func (c chunk) key(i int) string {
	head := 2 + 2*c.len()
	start := head
	if i > 0 {
		start += int(c[2*i])<<8 | int(c[2*i+1])
	}
	return string(c[start : head+int(c[2*i+2])<<8+int(c[2*i+3])])
}

func newChunk(keys []string) chunk {
	var b strings.Builder
	size := 2 + 2*len(keys)
	for _, k := range keys {
		size += len(k)
	}
	b.Grow(size)
	b.WriteByte(byte(len(keys) >> 8))
	b.WriteByte(byte(len(keys)))
	end := 0
	for _, k := range keys {
		end += len(k)
		b.WriteByte(byte(end >> 8))
		b.WriteByte(byte(end))
	}
	for _, k := range keys {
		b.WriteString(k)
	}
	return chunk(b.String())
}

// search returns how many keys of a chunk are less than the given one, or equal to it where equal says so.
func (c chunk) search(key []byte, equal bool) int {
	low, high := 0, c.len()
	for low < high {
		if mid := (low + high) / 2; less(c.key(mid), key, equal) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

func less(a string, b []byte, equal bool) bool { return a < string(b) || equal && a == string(b) }

// before returns the last key that is less than the given one; empty where there is none.
func (o order) before(key []byte) string {
	low, high := 0, len(o)
	for low < high {
		if mid := (low + high) / 2; less(o[mid].key(0), key, false) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == 0 {
		return ""
	}
	c := o[low-1]
	return c.key(c.search(key, false) - 1)
}

// after returns the first key that is greater than the given one; empty where there is none.
func (o order) after(key []byte) string {
	if len(o) == 0 {
		return ""
	}
	i := o.place(key)
	if at := o[i].search(key, true); at < o[i].len() {
		return o[i].key(at)
	}
	if i+1 < len(o) {
		return o[i+1].key(0)
	}
	return ""
}

// place returns the chunk that a key belongs into, which is the first where the key is less than all.
func (o order) place(key []byte) int {
	low, high := 0, len(o)
	for low < high {
		if mid := (low + high) / 2; less(o[mid].key(0), key, true) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return max(low-1, 0)
}

// newOrder makes the order of sorted keys.
func newOrder(keys []string) order {
	var o order
	for part := range slices.Chunk(keys, (chunkMost+chunkLeast)/2) {
		o = append(o, newChunk(part))
	}
	return o
}

// with returns the order with keys added and without those that are gone; both are sorted and true.
func (o order) with(added, gone []string) order {
	next := make(order, 0, len(o)+1)
	var keys []string
	for i := 0; i < max(len(o), 1); i++ {
		// A chunk holds what is less than the next one's first key; a small one is put together with its neighbour.
		mine := func(list []string) int {
			if i+1 >= len(o) {
				return len(list)
			}
			n, _ := slices.BinarySearch(list, o[i+1].key(0))
			return n
		}
		a, g := mine(added), mine(gone)
		if a == 0 && g == 0 && len(keys) == 0 {
			if i < len(o) {
				next = append(next, o[i])
			}
			continue
		}
		if i < len(o) {
			keys = o[i].appendKeys(keys)
		}
		keys = merge(keys, added[:a], gone[:g])
		added, gone = added[a:], gone[g:]
		if len(keys) >= chunkLeast {
			next = append(next, pieces(keys)...)
			keys = keys[:0]
		}
	}
	if len(keys) > 0 {
		next = append(next, newChunk(keys))
	}
	return next
}

func (c chunk) appendKeys(keys []string) []string {
	for i := range c.len() {
		keys = append(keys, c.key(i))
	}
	return keys
}

// merge adds keys to a sorted list and takes others away.
func merge(keys, added, gone []string) []string {
	for _, k := range gone {
		if at, ok := slices.BinarySearch(keys, k); ok {
			keys = slices.Delete(keys, at, at+1)
		}
	}
	if len(added) > chunkMost {
		keys = append(keys, added...)
		slices.Sort(keys)
		return keys
	}
	for _, k := range added {
		if at, ok := slices.BinarySearch(keys, k); !ok {
			keys = slices.Insert(keys, at, k)
		}
	}
	return keys
}

// pieces makes chunks of keys: one, unless they are too many.
func pieces(keys []string) order {
	if len(keys) <= chunkMost {
		return order{newChunk(keys)}
	}
	return newOrder(keys)
}

// appendSortKey appends what compares, octet by octet, as a name does in canonical order: its labels from the last to the
// first, an octet 0 behind each. An octet 0 in a label becomes 1; no zone has names with either. The name is what stands
// before the origin, and no longer than its key.
func appendSortKey(dst, rel []byte) []byte {
	var starts [maxName / 2]uint8
	n := 0
	for i := 0; i < len(rel); i += 1 + int(rel[i]) {
		starts[n] = uint8(i)
		n++
	}
	for n--; n >= 0; n-- {
		start := int(starts[n])
		for _, c := range rel[start+1 : start+1+int(rel[start])] {
			dst = append(dst, max(c, 1))
		}
		dst = append(dst, 0)
	}
	return dst
}

// appendKeyName appends the name, before the origin, of a key.
func appendKeyName(dst []byte, key string) []byte {
	for key != "" {
		start := strings.LastIndexByte(key[:len(key)-1], 0) + 1
		label := key[start : len(key)-1]
		dst = append(append(dst, byte(len(label))), label...)
		key = key[:start]
	}
	return dst
}
