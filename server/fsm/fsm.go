package fsm

import (
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Level is the newest command set that this version understands. Level 2 has heirs, notices and adopted machines, and what a
// pool, a network and a provider can say of a cloud; level 3 has VPNs, secrets, facts, reboots, the authority for SSH, and what
// a pool and a network can say of a machine beyond files and packages; level 4 has records of all kinds, endpoints, machines' facts
// in their names, signed and transferred zones, and classless reverse zones: see [Needs].
const Level = 4

// MaxRequests bounds the requests of one log entry.
const MaxRequests = 1024

// Result is what became of one request.
type Result struct {
	// Version is the log position of the request; of the first one with its id, where it is a repetition.
	Version *provisionrv1.Version
	// Err says why the request was refused; nil if it was applied.
	Err *errs.Error
}

// FSM applies the log to a store.
type FSM struct {
	store *state.Store
	level uint32
	log   *slog.Logger

	stopped atomic.Pointer[errs.Error]
	once    sync.Once
	fatal   func(error)
}

// New returns an FSM that writes to the store and understands commands up to the feature level.
func New(store *state.Store, level uint32, logger *slog.Logger) *FSM {
	return &FSM{store: store, level: level, log: logger, fatal: func(error) {}}
}

// OnFatal sets what is called, once, when the FSM stops. It is called before anything is applied.
func (f *FSM) OnFatal(fatal func(error)) { f.fatal = fatal }

// Stopped returns why the FSM stopped, or nil.
func (f *FSM) Stopped() error {
	if err := f.stopped.Load(); err != nil {
		return err
	}
	return nil
}

// Stop stops the FSM for a reason found outside, as a damaged log entry.
func (f *FSM) Stop(err *errs.Error) { f.stop(err) }

func (f *FSM) stop(err *errs.Error) {
	f.once.Do(func() {
		f.stopped.Store(err)
		f.log.Error("member stops applying the log", "error", err, "hint", err.Hint)
		f.fatal(err)
	})
}

// Apply applies the entry at a log index and returns a result for each of its requests. It returns nil if the member
// has stopped, now or before: what became of the requests is then for other members to say.
func (f *FSM) Apply(index uint64, entry []byte) (results []Result) {
	if f.stopped.Load() != nil {
		return nil
	}
	defer func() {
		// A defect met by one entry would be met again at each start: stop where the cause is known.
		if r := recover(); r != nil {
			results = nil
			f.log.Error("applying the log panicked", "index", index, "stack", string(debug.Stack()))
			f.stop(errs.New(errs.Internal, "cannot apply log entry %d: %v", index, r).
				WithHint("this is a defect: report it with the log of this server"))
		}
	}()
	e := &raftlogv1.Entry{}
	if err := proto.Unmarshal(entry, e); err != nil {
		f.stop(errs.New(errs.Internal, "cannot decode log entry %d: %w", index, err).
			WithHint("the log is damaged: remove this member's raft directory and let it join again"))
		return nil
	}
	for _, r := range e.GetRequests() {
		if err := f.understands(index, r); err != nil {
			f.stop(err)
			return nil
		}
	}
	results = make([]Result, len(e.GetRequests()))
	for i, r := range e.GetRequests() {
		if results[i] = f.request(index, uint32(i), r); f.stopped.Load() != nil {
			return nil
		}
	}
	if len(results) == 0 {
		tx := f.store.Begin()
		tx.SetVersion(&provisionrv1.Version{Incarnation: incarnation(&tx.Snapshot), Index: index})
		if !f.commit(tx, index) {
			return nil
		}
	}
	f.store.Publish()
	return results
}

func (f *FSM) understands(index uint64, r *raftlogv1.Request) *errs.Error {
	upgrade := "upgrade this server to the version of the others and start it again"
	level := max(r.GetFeatureLevel(), r.GetCommand().GetSetFeatureLevel().GetLevel())
	if level > f.level {
		return errs.New(errs.Unsupported, "log entry %d needs feature level %d, this server has %d", index, level, f.level).WithHint("%s", upgrade)
	}
	if c := r.GetCommand(); c != nil && c.GetKind() == nil && len(c.ProtoReflect().GetUnknown()) > 0 {
		return errs.New(errs.Unsupported, "log entry %d holds a command that this server does not know", index).WithHint("%s", upgrade)
	}
	return nil
}

// request applies one request in a transaction of its own and remembers its result.
func (f *FSM) request(index uint64, sub uint32, r *raftlogv1.Request) Result {
	tx := f.store.Begin()
	a := newApplier(tx, index, sub, r)
	if first := a.repeated(); first != nil {
		// The state is at this version all the same: readers wait for it.
		a.SetVersion(a.version)
		if !f.commit(tx, index) {
			return Result{}
		}
		return *first
	}
	err := a.command(r.GetCommand())
	if err != nil && !a.keep {
		tx.Abort()
		tx = f.store.Begin()
		a = newApplier(tx, index, sub, r)
	}
	a.finish(err)
	if !f.commit(tx, index) {
		return Result{}
	}
	return Result{Version: a.version, Err: err}
}

func (f *FSM) commit(tx *state.Tx, index uint64) bool {
	if err := tx.Commit(); err != nil {
		f.stop(errs.New(errs.Internal, "cannot apply log entry %d: %w", index, err).
			WithHint("this is a defect: report it with the log of this server"))
		return false
	}
	return true
}

// repeated returns the first result of a request id that was applied before, or nil.
func (a *applier) repeated() *Result {
	id := a.request.GetId()
	if id == "" {
		return nil
	}
	first := a.AppliedRequest(safeKey(id))
	if first == nil {
		return nil
	}
	result := &Result{Version: first.GetVersion()}
	if first.GetErrorKind() != "" {
		result.Err = &errs.Error{Kind: errs.Kind(first.GetErrorKind()), Message: first.GetErrorMessage(), Hint: first.GetErrorHint()}
	}
	return result
}

// Snapshot returns the state to store, or why there is none to trust.
func (f *FSM) Snapshot() (*state.Snapshot, error) {
	if err := f.Stopped(); err != nil {
		return nil, fmt.Errorf("cannot take a snapshot of a member that has stopped: %w", err)
	}
	return f.store.Read(), nil
}

// Restore replaces the state by a stored snapshot. A snapshot of a feature level above this server's is refused.
func (f *FSM) Restore(r io.Reader) error {
	before, err := f.Snapshot()
	if err != nil {
		return err
	}
	if err := f.store.Restore(r); err != nil {
		return errs.New(errs.Internal, "cannot restore the snapshot: %w", err)
	}
	if level := f.store.Read().Cluster().GetFeatureLevel(); level > f.level {
		err := errs.New(errs.Unsupported, "the snapshot needs feature level %d, this server has %d", level, f.level).
			WithHint("upgrade this server to the version of the others and start it again")
		f.stop(err)
		return err
	}
	f.log.Info("state restored", "from_index", before.Version().GetIndex(), "to_index", f.store.Read().Version().GetIndex())
	return nil
}
