package state

import (
	"slices"
	"sync"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// MaxChanges is how many changed rows are remembered for [Store.Changes].
const MaxChanges = 8192

// dnsTables are those that names and addresses are made of.
const dnsTables = TablePools | TableMachines | TableSlots | TableClaims | TableZones | TableNetworks | TableMembers

// Row is a row of a table that DNS records are made of, as it was before it was written or deleted. A row that was written
// several times is there as often.
type Row struct {
	Table Table
	// Name is the metadata's; a claim's is NETWORK/ADDRESS.
	Name string
	// Before is nil for a new row, and for every machine, whose history would only keep memory.
	Before any
}

// changes remembers the newest rows that transactions with a change of names wrote, by publication.
type changes struct {
	mu sync.Mutex
	// rows[i] was published by number[i]; both ascend.
	rows   []Row
	number []uint64
	// since is the publication after which everything is remembered.
	since uint64
	// pending are committed and not published; lost says that there were too many.
	pending []Row
	lost    bool
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
	if c.lost = c.lost || len(c.pending)+len(rows) > MaxChanges; c.lost {
		c.pending = nil
		return
	}
	c.pending = append(c.pending, rows...)
}

// forget has the next publication be one that nothing before is known of.
func (c *changes) forget() { c.pending, c.lost = nil, true }

// publish moves what is pending behind a publication and drops the oldest rows, whole publications at a time.
func (c *changes) publish(publication uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pending, lost := c.pending, c.lost
	c.pending, c.lost = nil, false
	if lost {
		c.rows, c.number, c.since = nil, nil, publication
		return
	}
	old := len(c.rows)
	for _, row := range pending {
		c.rows, c.number = append(c.rows, row), append(c.number, publication)
	}
	if over := len(c.rows) - MaxChanges; over > 0 {
		// A quarter more, so that rows are not moved at each publication.
		c.since = c.number[min(over+MaxChanges/4, old)-1]
		drop, _ := slices.BinarySearch(c.number, c.since+1)
		c.rows, c.number = slices.Delete(c.rows, 0, drop), slices.Delete(c.number, 0, drop)
	}
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
