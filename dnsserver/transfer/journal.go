package transfer

import (
	"bytes"
	"slices"
	"sync"

	"github.com/provisionr/provisionr/dnsserver/zone"
)

// DefaultJournalSize bounds the differences that are kept of one zone, in octets.
const DefaultJournalSize = 4 << 20

// A delta is the difference between two versions of a zone: the SOA before, the records that go, the SOA after, and the records
// that come, in the order and, but for compression, in the form in which IXFR sends them.
type delta struct {
	from, to uint32
	records  []byte
}

// Journal holds the latest differences of one zone, each from one published version to the next. It is safe for concurrent use.
type Journal struct {
	limit int

	mu sync.Mutex
	// deltas follow each other without a gap; size is their octets.
	deltas []delta
	size   int
}

// NewJournal makes a journal of at most limit octets; zero means [DefaultJournalSize]. When it is full, the oldest goes.
func NewJournal(limit int) *Journal {
	if limit <= 0 {
		limit = DefaultJournalSize
	}
	return &Journal{limit: limit}
}

// Add appends the difference between two versions of the zone. Names are the owners that may differ; the apex counts as one of
// them always. Nil means that nobody knows, and has the whole zones compared. What does not follow the last version that the
// journal knows of, as after a restore, makes it begin anew; a version that was only made once more does not.
func (j *Journal) Add(from, to *zone.Zone, names []string) {
	// Beyond the size of the whole zone, generously reckoned, differences are of no use.
	limit := min(j.limit, 4<<10+512*to.Len())
	var d delta
	fits := false
	if from != nil && from.Origin() == to.Origin() && (newer(to.Serial(), from.Serial()) || to.Serial() == from.Serial()) {
		d, fits = difference(from, to, names, limit)
	}
	if fits && d.from == d.to {
		if len(d.records) == len(appendRecord(appendRecord(nil, from.SOA()), to.SOA())) {
			return
		}
		fits = false // Other records under the same serial: nobody could ask for the difference.
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !fits || len(j.deltas) > 0 && j.deltas[len(j.deltas)-1].to != d.from {
		j.deltas, j.size = nil, 0
	}
	if !fits {
		return
	}
	j.deltas = append(j.deltas, d)
	j.size += len(d.records)
	drop := 0
	for ; j.size > limit; drop++ {
		j.size -= len(j.deltas[drop].records)
		j.deltas[drop].records = nil
	}
	j.deltas = j.deltas[drop:]
}

// between returns the differences that lead from one version to another and their octets. It reports whether it has them.
func (j *Journal) between(from, to uint32) (deltas []delta, size int, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := slices.IndexFunc(j.deltas, func(d delta) bool { return d.from == from })
	if first < 0 {
		return nil, 0, false
	}
	for i, d := range j.deltas[first:] {
		size += len(d.records)
		if d.to == to {
			// The journal clears what it drops, so the caller gets a copy.
			return slices.Clone(j.deltas[first : first+i+1]), size, true
		}
	}
	return nil, 0, false
}

// newer reports whether serial a is greater than b (RFC 1982 section 3.2). Two that are half of all apart are neither.
func newer(a, b uint32) bool { return a != b && a-b < 1<<31 }

// difference compares two versions at the given names. It reports whether the difference is at most limit octets.
func difference(from, to *zone.Zone, names []string, limit int) (delta, bool) {
	if names == nil {
		names = owners(from, to)
	}
	d := delta{from: from.Serial(), to: to.Serial(), records: appendRecord(nil, from.SOA())}
	added := appendRecord(nil, to.SOA())
	compare := func(name string) {
		before, after := recordsOf(from, name), recordsOf(to, name)
		for len(before) > 0 || len(after) > 0 {
			switch order := compareFirst(before, after); {
			case order < 0:
				d.records = appendRecord(d.records, before[0])
				before = before[1:]
			case order > 0:
				added = appendRecord(added, after[0])
				after = after[1:]
			default:
				before, after = before[1:], after[1:]
			}
		}
	}
	apex := string(appendName(nil, to.Origin()))
	compare(to.Origin())
	seen := map[string]bool{apex: true}
	var buf []byte
	for _, name := range names {
		if buf = appendName(buf[:0], name); seen[string(buf)] {
			continue
		}
		seen[string(buf)] = true
		compare(name)
		if len(d.records)+len(added) > limit {
			return delta{}, false
		}
	}
	d.records = slices.Concat(d.records, added)
	return d, len(d.records) <= limit
}

// recordsOf returns the records of a name, sorted, without the SOA.
func recordsOf(z *zone.Zone, name string) []zone.Record {
	var records []zone.Record
	for r := range z.Records(name) {
		if r.Type != zone.TypeSOA {
			records = append(records, r)
		}
	}
	slices.SortFunc(records, compareRecords)
	return records
}

// compareFirst compares the first records of two sorted lists, of which one may be empty.
func compareFirst(a, b []zone.Record) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return compareRecords(a[0], b[0])
}

// compareRecords compares records of one name. A record of another TTL is another record: it replaces the one before.
func compareRecords(a, b zone.Record) int {
	if a.Type != b.Type {
		return int(a.Type) - int(b.Type)
	}
	if a.TTL != b.TTL {
		return int(int64(a.TTL) - int64(b.TTL))
	}
	return bytes.Compare(a.Data, b.Data)
}

// owners returns the names of both versions, some more than once.
func owners(zones ...*zone.Zone) []string {
	names := []string{}
	for _, z := range zones {
		for r := range z.All() {
			if len(names) == 0 || names[len(names)-1] != r.Name {
				names = append(names, r.Name)
			}
		}
	}
	return names
}
