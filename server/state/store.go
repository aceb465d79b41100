package state

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Store holds the state of one member. Reading is safe from everywhere; writing belongs to the FSM alone.
type Store struct {
	current atomic.Pointer[Snapshot]
	db      *memdb.MemDB
	// pending are the tables that committed transactions touched since the last Publish.
	pending Table
	// names is what is remembered of changes of names.
	names changes

	mu sync.Mutex
	// watchers has one channel for each set of tables that somebody watches, so it is bounded by the kinds of callers.
	watchers map[Table]chan struct{}
}

// New returns an empty store.
func New() *Store {
	db, err := newDB()
	if err != nil {
		// The schema is a constant of this package, which every test of it builds.
		panic(fmt.Sprintf("state: the schema does not hold: %v", err))
	}
	s := &Store{db: db, watchers: map[Table]chan struct{}{}}
	s.current.Store(&Snapshot{txn: db.Txn(false)})
	return s
}

func newDB() (*memdb.MemDB, error) { return memdb.NewMemDB(schema()) }

// Read returns the newest published state.
func (s *Store) Read() *Snapshot { return s.current.Load() }

// Watch returns a channel that is closed at the next publication that touched one of the tables, or by any publication
// if no table is given. A restore touches all.
func (s *Store) Watch(tables ...Table) <-chan struct{} {
	var mask Table
	for _, t := range tables {
		mask |= t
	}
	if len(tables) == 0 {
		mask = ^Table(0)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch, ok := s.watchers[mask]
	if !ok {
		ch = make(chan struct{})
		s.watchers[mask] = ch
	}
	return ch
}

// Publish makes what was committed since the last call visible.
func (s *Store) Publish() {
	s.publish(s.pending)
	s.pending = 0
}

func (s *Store) publish(touched Table) {
	publication := s.current.Load().publication + 1
	s.names.publish(publication)
	s.current.Store(&Snapshot{txn: s.db.Txn(false), publication: publication})
	s.mu.Lock()
	defer s.mu.Unlock()
	for mask, ch := range s.watchers {
		if mask&touched != 0 || mask == ^Table(0) {
			close(ch)
			delete(s.watchers, mask)
		}
	}
}

// Begin starts a transaction. There is at most one at a time; it ends with Commit or Abort.
func (s *Store) Begin() *Tx {
	txn := s.db.Txn(true)
	return &Tx{Snapshot: Snapshot{txn: txn}, store: s}
}

// Tx is a transaction of the FSM. It reads what it wrote. The first error that a write meets is kept for Commit.
type Tx struct {
	Snapshot
	store   *Store
	touched Table
	// rows of DNS tables that were written or deleted; named says that they are to be remembered.
	rows  []Row
	named bool
	err   error
}

// Abort forgets the transaction.
func (tx *Tx) Abort() { tx.txn.Abort() }

// Commit ends the transaction. An error means a defect, and that nothing was changed.
func (tx *Tx) Commit() error {
	if tx.err != nil {
		tx.txn.Abort()
		return tx.err
	}
	tx.txn.Commit()
	tx.store.pending |= tx.touched
	if tx.named {
		tx.store.names.add(tx.rows)
	}
	return nil
}

func (tx *Tx) insert(t Table, row any) {
	tx.touched |= t
	tx.note(t, row)
	if err := tx.txn.Insert(memTables[t], row); err != nil {
		tx.err = errors.Join(tx.err, fmt.Errorf("cannot write a row of %s: %w", memTables[t], err))
	}
}

func (tx *Tx) remove(t Table, row any) {
	tx.touched |= t
	tx.note(t, row)
	if err := tx.txn.Delete(memTables[t], row); err != nil && !errors.Is(err, memdb.ErrNotFound) {
		tx.err = errors.Join(tx.err, fmt.Errorf("cannot delete a row of %s: %w", memTables[t], err))
	}
}

func (tx *Tx) meta() meta {
	m := tx.readMeta()
	if m == nil {
		return meta{}
	}
	return *m
}

func (tx *Tx) putMeta(m meta) {
	if err := tx.txn.Insert(metaTable, &m); err != nil {
		tx.err = errors.Join(tx.err, fmt.Errorf("cannot write the counts: %w", err))
	}
}

// SetVersion says which log position the state is at.
func (tx *Tx) SetVersion(v *provisionrv1.Version) {
	m := tx.meta()
	m.version = v
	tx.putMeta(m)
}
