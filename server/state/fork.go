package state

// Fork returns a store of its own that begins with what this one has committed: what is written to it nobody else sees.
// It costs next to nothing.
func (s *Store) Fork() *Store {
	fork := &Store{db: s.db.Snapshot(), watchers: map[Table]chan struct{}{}}
	fork.current.Store(&Snapshot{txn: fork.db.Txn(false)})
	return fork
}
