package state

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Bounds of what is remembered for [Store.Changes].
const (
	// MaxChanges is how many changed rows.
	MaxChanges = 8192
	// MaxChangeSize is how many octets the zones and pools among them have as they were before, in wire form.
	MaxChangeSize = 4 << 20
)

// dnsTables are those that names and addresses are made of.
const dnsTables = TablePools | TableMachines | TableSlots | TableClaims | TableZones | TableNetworks | TableMembers

// Row is a row of a table that DNS records are made of, as it was before it was written or deleted. A row that was written
// several times is there as often.
type Row struct {
	Table Table
	// Name is the metadata's; a claim's is NETWORK/ADDRESS.
	Name string
	// Before is nil for a new row, and for every machine, whose history would only keep memory. A zone's is a [ZoneRow].
	Before any
}

// changes remembers the newest rows that transactions with a change of names wrote, by publication.
type changes struct {
	mu sync.Mutex
	// rows[i] was published by number[i], which ascend, and keeps sizes[i] octets. Size is their sum.
	rows   []Row
	number []uint64
	sizes  []int
	size   int
	// since is the publication after which everything is remembered.
	since uint64
	// pending are committed and not published, of pendingSize octets; lost says that there were too many.
	pending     []Row
	pendingSize int
	lost        bool
}

// Publication counts the publications of the store that a snapshot is of, for [Store.Changes].
func (s *Snapshot) Publication() uint64 { return s.publication }

// Changes returns the rows behind the changes of names that were published after one snapshot's publication up to another
// snapshot, oldest first. It reports false if it remembers only some of them, as after a restore.
func (s *Store) Changes(after uint64, until *Snapshot) ([]Row, bool) {
	c := &s.names
	c.mu.Lock()
	defer c.mu.Unlock()
	if after < c.since || after > until.publication {
		return nil, false
	}
	first, _ := slices.BinarySearch(c.number, after+1)
	last, _ := slices.BinarySearch(c.number, until.publication+1)
	return slices.Clone(c.rows[first:last]), true
}

func (c *changes) add(rows []Row) {
	for _, row := range rows {
		c.pendingSize += row.size()
	}
	if c.lost = c.lost || len(c.pending)+len(rows) > MaxChanges || c.pendingSize > MaxChangeSize; c.lost {
		c.forget()
		return
	}
	c.pending = append(c.pending, rows...)
}

// forget has the next publication be one that nothing before is known of.
func (c *changes) forget() { c.pending, c.pendingSize, c.lost = nil, 0, true }

// size is what a row keeps, as far as it may be much: up to a thousand times what others do.
func (r Row) size() int {
	switch before := r.Before.(type) {
	case *ZoneRow:
		return proto.Size(before.Zone) + before.Records.Size()
	case *provisionrv1.Pool:
		return proto.Size(before)
	}
	return 0
}

// publish moves what is pending behind a publication and drops the oldest rows, whole publications at a time.
func (c *changes) publish(publication uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pending, lost := c.pending, c.lost
	c.pending, c.pendingSize, c.lost = nil, 0, false
	if lost {
		c.rows, c.number, c.sizes, c.size, c.since = nil, nil, nil, 0, publication
		return
	}
	old := len(c.rows)
	for _, row := range pending {
		c.rows, c.number, c.sizes = append(c.rows, row), append(c.number, publication), append(c.sizes, row.size())
		c.size += row.size()
	}
	drop := 0
	if over := len(c.rows) - MaxChanges; over > 0 {
		// A quarter more, so that rows are not moved at each publication.
		drop = min(over+MaxChanges/4, old)
	}
	// What is new fits by itself.
	for left := c.size - sum(c.sizes[:drop]); left > MaxChangeSize; drop++ {
		left -= c.sizes[drop]
	}
	if drop > 0 {
		c.since = c.number[drop-1]
		drop, _ = slices.BinarySearch(c.number, c.since+1)
		c.size -= sum(c.sizes[:drop])
		c.rows, c.number, c.sizes = slices.Delete(c.rows, 0, drop), slices.Delete(c.number, 0, drop), slices.Delete(c.sizes, 0, drop)
	}
}

func sum(sizes []int) (n int) {
	for _, size := range sizes {
		n += size
	}
	return n
}

// note remembers the present row of a table that a row is about to replace or to be deleted from. One row more than are
// remembered is enough to tell that there were too many.
func (tx *Tx) note(t Table, row any) {
	if t&dnsTables == 0 || len(tx.rows) > MaxChanges {
		return
	}
	change := Row{Table: t}
	if claim, ok := row.(*provisionrv1.AddressClaim); ok {
		change.Name = claim.GetNetwork() + "/" + claim.GetAddress()
		change.Before, _ = tx.txn.First(memTables[t], idIndex, claimKey(claim.GetNetwork(), claim.GetAddress()))
	} else if named, ok := row.(named); ok {
		change.Name = named.GetMetadata().GetName()
		if t != TableMachines {
			change.Before, _ = tx.txn.First(memTables[t], idIndex, key(change.Name))
		}
	}
	tx.rows = append(tx.rows, change)
}
