package dnsserver

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
)

// kind is what answers are counted as for one source; each has a limit of its own.
type kind uint8

const (
	kindPositive kind = iota
	kindNoData
	kindNameError
	kindError
	// kindSlow is everything that costs more than a look-up.
	kindSlow
)

// permit is what a limiter says of one answer.
type permit uint8

const (
	permitAnswer permit = iota
	// permitSlip: answer so little that only a real client gains by it.
	permitSlip
	permitNone
)

const (
	// slip is how many answers beyond the limit there are to one that still goes out, truncated.
	slip = 2
	// ways is how many sources share a line of the table, which is a cache line; lines is the number of those.
	ways  = 8
	lines = 4096
)

// Fields of an entry: whom it counts, in which second, and how many answers.
const (
	countBits  = 24
	countMax   = 1<<countBits - 1
	secondBits = 16
	secondMask = 1<<secondBits - 1
	tagShift   = countBits + secondBits
)

// limiter counts answers per second to a source network (IPv4 /24, IPv6 /56) and kind: response rate limiting, so that
// forged sources are not flooded through us. Where more networks ask than it has room for, it remembers those that
// ask most. It takes no locks; a count that is lost between two cores does not matter.
type limiter struct {
	seed  maphash.Seed
	limit uint64
	table [lines][ways]atomic.Uint64
}

// newLimiter makes a limiter of perSecond answers; nil, which limits nothing, for none.
func newLimiter(perSecond int) *limiter {
	if perSecond <= 0 {
		return nil
	}
	return &limiter{seed: maphash.MakeSeed(), limit: uint64(min(perSecond, countMax-1))}
}

// account counts the answers of one kind to one source in one second. Its entry is found once and written once, however many
// these are.
type account struct {
	entry *atomic.Uint64
	// head is the entry's without a count; before were counted when it was opened, and more since.
	head, before, more uint64
}

// open returns the account of answers in a second of any clock that goes forward.
func (l *limiter) open(b bucket, k kind, second uint32) account {
	// Kinds differ in the line and in the tag.
	hash := uint64(b) ^ uint64(k)*0x9e3779b97f4a7c15
	line := &l.table[hash%lines]
	// The head of an entry of this source in this second; a zero word must not look like one.
	tag := hash>>tagShift | 1
	a := account{head: tag<<tagShift | uint64(second&secondMask)<<countBits}
	lowest := uint64(1<<64 - 1)
	for i := range line {
		entry := &line[i]
		word := entry.Load()
		if word>>tagShift == tag {
			a.entry, a.before = entry, a.counted(word)
			return a
		}
		// Entries of other seconds are worth nothing any more.
		weight := word & countMax
		if (word^a.head)>>countBits&secondMask != 0 {
			weight = 0
		}
		if weight < lowest {
			lowest, a.entry = weight, entry
		}
	}
	return a
}

// counted returns how many answers of the account's an entry's word has.
func (a *account) counted(word uint64) uint64 {
	if word>>countBits == a.head>>countBits {
		return word & countMax
	}
	return 0
}

// take counts an answer.
func (l *limiter) take(a *account) permit {
	a.more++
	n := min(a.before+a.more, countMax)
	switch over := n - l.limit; {
	case n <= l.limit:
		return permitAnswer
	case over%slip == 0 && n < countMax:
		return permitSlip
	}
	return permitNone
}

// close adds what was counted to the entry, if there is one, and to what others have counted meanwhile.
func (a *account) close() {
	if a.entry != nil {
		a.entry.Store(a.head | min(a.counted(a.entry.Load())+a.more, countMax))
		a.entry = nil
	}
}

// The networks that one who asks is taken to have, in bits: what counts for one of its addresses counts for all.
const (
	network4 = 24
	network6 = 56
)

// networkOf returns the network of a source.
func networkOf(source netip.Addr) netip.Prefix {
	size := network6
	if source.Is4() {
		size = network4
	}
	prefix, _ := source.Prefix(size) // The sizes are right for the families.
	return prefix
}

// bucket is what the answers to a source are counted in: its network, as a hash.
type bucket uint64

// bucket returns what answers to a source are counted in.
func (l *limiter) bucket(source netip.Addr) bucket {
	if l == nil {
		return 0
	}
	var key [8]byte
	if source.Is4() {
		addr := source.As4()
		copy(key[:network4/8], addr[:])
		key[7] = 4
	} else {
		addr := source.As16()
		copy(key[:network6/8], addr[:])
	}
	return bucket(maphash.Bytes(l.seed, key[:]))
}
