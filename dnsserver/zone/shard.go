package zone

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"strings"
)

// A shard is the names of one hash range in one block of memory without pointers: their number (2 octets), the low octet
// of each name's hash, the offset of each entry (4 octets), and the entries: length of the name, name, node. So a lookup
// touches the head and the entry, and a change copies a dozen names. The empty shard has no names.
type shard string

// meanMost and meanLeast bound the names of a mean shard; beyond, their number doubles or halves.
const (
	meanMost  = 16
	meanLeast = 4
)

func (s shard) len() int {
	if s == "" {
		return 0
	}
	return int(s[0])<<8 | int(s[1])
}

// offset returns where the i-th of n entries begins, which is the end for i == n.
func (s shard) offset(i, n int) int {
	if i == n {
		return len(s)
	}
	at := 2 + n + 4*i
	return int(s[at])<<24 | int(s[at+1])<<16 | int(s[at+2])<<8 | int(s[at+3])
}

// find returns what a name has.
func (s shard) find(hash uint64, rel []byte) (node, bool) {
	return s.findFrom(s.tagged(hash, 0), hash, rel)
}

// findFrom is find where the first entry to look at is known.
func (s shard) findFrom(i int, hash uint64, rel []byte) (node, bool) {
	for n := s.len(); i >= 0; i = s.tagged(hash, i+1) {
		off := s.offset(i, n)
		end := off + 1 + int(s[off])
		if string(s[off+1:end]) == string(rel) {
			return node(s[end:s.offset(i+1, n)]), true
		}
	}
	return "", false
}

// tagged returns the number of the first entry from i on whose name may have a hash, or -1.
func (s shard) tagged(hash uint64, i int) int {
	if n := s.len(); i < n {
		if at := strings.IndexByte(string(s[2+i:2+n]), byte(hash)); at >= 0 {
			return i + at
		}
	}
	return -1
}

// all yields the names with what they have.
func (s shard) all() iter.Seq2[string, node] {
	return func(yield func(string, node) bool) {
		n := s.len()
		for i := range n {
			off := s.offset(i, n)
			end := off + 1 + int(s[off])
			if !yield(string(s[off+1:end]), node(s[end:s.offset(i+1, n)])) {
				return
			}
		}
	}
}

// shardWriter makes shards. Its buffers are used again.
type shardWriter struct {
	tags, offsets, entries []byte
	starts                 []int
}

func (w *shardWriter) reset() {
	w.tags, w.offsets, w.entries, w.starts = w.tags[:0], w.offsets[:0], w.entries[:0], w.starts[:0]
}

// begin begins the entry of a name with so many octets; the name and its node are then appended to entries.
func (w *shardWriter) begin(hash uint64, size int) {
	w.tags = append(w.tags, byte(hash))
	w.starts = append(w.starts, len(w.entries))
	w.entries = append(w.entries, byte(size))
}

func (w *shardWriter) add(hash uint64, rel string, n node) {
	w.begin(hash, len(rel))
	w.entries = append(append(w.entries, rel...), n...)
}

// shard returns the entries so far.
func (w *shardWriter) shard() shard {
	n := len(w.tags)
	if n == 0 {
		return ""
	}
	head := 2 + 5*n
	w.offsets = append(w.offsets[:0], byte(n>>8), byte(n))
	w.offsets = append(w.offsets, w.tags...)
	for _, start := range w.starts {
		at := head + start
		w.offsets = append(w.offsets, byte(at>>24), byte(at>>16), byte(at>>8), byte(at))
	}
	var b strings.Builder
	b.Grow(head + len(w.entries))
	b.Write(w.offsets)
	b.Write(w.entries)
	return shard(b.String())
}

// pageSize is how many shards are copied together when one changes.
const pageSize = 64

type page [pageSize]shard

// A directory finds shards by the top bits of a name's hash. Its pages are shared by versions and never change.
type directory struct {
	seed  maphash.Seed
	pages []*page
	// bits says how many shards there are; count is the number of names.
	bits, count int
}

func newDirectory(seed maphash.Seed, count int) directory {
	d := directory{seed: seed, bits: bits.Len(uint((count - 1) / meanMost)), count: count}
	if count == 0 {
		d.bits = 0
	}
	d.pages = make([]*page, (1<<d.bits+pageSize-1)/pageSize)
	for i := range d.pages {
		d.pages[i] = new(page)
	}
	return d
}

func (d *directory) hash(rel string) uint64 { return maphash.String(d.seed, rel) }

// index returns the number of the shard that a hash belongs to.
func (d *directory) index(hash uint64) int { return int(hash >> 1 >> (63 - d.bits)) }

// at returns where the shard of a number is.
func (d *directory) at(i int) *shard { return &d.pages[i/pageSize][i%pageSize] }

// fits reports whether there are as many shards as so many names want.
func (d *directory) fits(count int) bool {
	return count <= meanMost<<d.bits && (d.bits == 0 || count >= meanLeast<<d.bits)
}
func (d *directory) all() iter.Seq2[string, node] {
	return func(yield func(string, node) bool) {
		for _, p := range d.pages {
			for _, s := range p {
				for rel, n := range s.all() {
					if !yield(rel, n) {
						return
					}
				}
			}
		}
	}
}

// find returns what a name has.
func (d *directory) find(rel []byte) (node, bool) {
	hash := maphash.Bytes(d.seed, rel)
	return d.at(d.index(hash)).find(hash, rel)
}

// An edit is what a name has from now on; the empty node takes it away.
type edit struct {
	hash uint64
	rel  string
	node node
}

// edits are sorted by hash.
type edits []edit

func (e edits) Len() int           { return len(e) }
func (e edits) Less(i, j int) bool { return e[i].hash < e[j].hash }
func (e edits) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }

// with returns the directory after sorted edits. It shares what they do not touch.
func (d *directory) with(changed edits, count int) directory {
	if count > meanMost<<d.bits { // Before, not after: else many names that come at once would crowd into few shards.
		grown := (&directory{seed: d.seed, pages: d.pages, bits: d.bits, count: count}).resized()
		d = &grown
	}
	next := directory{seed: d.seed, bits: d.bits, count: count, pages: append([]*page(nil), d.pages...)}
	var w shardWriter
	copied := -1
	for len(changed) > 0 {
		i := d.index(changed[0].hash)
		n := 1
		for n < len(changed) && d.index(changed[n].hash) == i {
			n++
		}
		if i/pageSize != copied {
			copied = i / pageSize
			p := *d.pages[copied]
			next.pages[copied] = &p
		}
		*next.at(i) = w.edit(d, *d.at(i), changed[:n])
		changed = changed[n:]
	}
	if !next.fits(count) {
		return next.resized()
	}
	return next
}

// edit returns a shard after edits.
func (w *shardWriter) edit(d *directory, s shard, edits []edit) shard {
	w.reset()
	for rel, n := range s.all() {
		kept := true
		for i := range edits {
			if edits[i].rel == rel {
				kept = false
			}
		}
		if kept {
			w.add(d.hash(rel), rel, n)
		}
	}
	for i := range edits {
		if e := &edits[i]; e.node != "" {
			w.add(e.hash, e.rel, e.node)
		}
	}
	return w.shard()
}

// resized returns the directory with as many shards as its names want.
func (d *directory) resized() directory {
	next := newDirectory(d.seed, d.count)
	var w shardWriter
	if next.bits > d.bits {
		for i := range 1 << d.bits {
			d.split(&next, i, &w)
		}
		return next
	}
	for i := range 1 << next.bits {
		w.reset()
		for from := i << (d.bits - next.bits); from < (i+1)<<(d.bits-next.bits); from++ {
			for rel, n := range d.at(from).all() {
				w.add(d.hash(rel), rel, n)
			}
		}
		*next.at(i) = w.shard()
	}
	return next
}

// split puts the names of a shard into the several that take its place.
func (d *directory) split(next *directory, i int, w *shardWriter) {
	more := next.bits - d.bits
	for to := i << more; to < (i+1)<<more; to++ {
		w.reset()
		for rel, n := range d.at(i).all() {
			if hash := d.hash(rel); next.index(hash) == to {
				w.add(hash, rel, n)
			}
		}
		*next.at(to) = w.shard()
	}
}
