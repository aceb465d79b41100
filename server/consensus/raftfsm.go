package consensus

import (
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

// raftFSM is the FSM as Raft calls it.
type raftFSM struct {
	fsm *fsm.FSM
	// restores counts the snapshots that replaced the state.
	restores *atomic.Uint64
}

// Apply answers []fsm.Result, nil where the FSM has stopped.
func (f raftFSM) Apply(entry *raft.Log) any {
	if !intact(entry) {
		f.fsm.Stop(errs.New(errs.Internal, "log entry %d fails its check", entry.Index).
			WithHint("remove this member from the cluster, delete its data directory and let it join again"))
		return []fsm.Result(nil)
	}
	return f.fsm.Apply(entry.Index, entry.Data)
}

func (f raftFSM) Snapshot() (raft.FSMSnapshot, error) {
	s, err := f.fsm.Snapshot()
	if err != nil {
		return nil, err
	}
	return stored{s}, nil
}

func (f raftFSM) Restore(r io.ReadCloser) error {
	defer r.Close()
	f.restores.Add(1)
	return f.fsm.Restore(r)
}

// stored is a state on its way to a snapshot.
type stored struct{ snapshot *state.Snapshot }

func (s stored) Persist(sink raft.SnapshotSink) error {
	if err := s.snapshot.Save(sink); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

func (stored) Release() {}
