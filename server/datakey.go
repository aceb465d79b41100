package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

const (
	// keySettle is how long what is wrong with the data key must last before a member acts. A join and a removal are a few
	// commands in a row; what is between them is no fault.
	keySettle = 2 * time.Second
	// maxKeyPause bounds the pause between two attempts, which doubles from keySettle.
	maxKeyPause = 5 * time.Minute
	// keyTimeout bounds one attempt: a cluster of many secrets takes many commands.
	keyTimeout = time.Minute
)

// dataKey sees to it that each member of the Raft configuration has the data key wrapped for it, and nobody else. A restore
// leaves a server without it that joined after the snapshot, and brings a key back that removed servers know; an exchange of
// the key may have been cut off. It looks at what is, not at what has happened.
//
// One member acts: of those that have the key the leader or, where it has none itself, the first by name; the others wait
// longer, in case it cannot. Two that act at once do no harm: the second change of the same key is refused.
type dataKey struct {
	self   string
	store  *state.Store
	raft   keyRaft
	ca     keyHolder
	caller *provisionrv1.Caller
	log    *slog.Logger

	// faults are those seen last, in the data key of row, and due is when this member acts. Without faults all are zero.
	faults string
	row    *raftlogv1.SealedKey
	due    time.Time
	pause  time.Duration
	// told is what was logged last, reported that there is an event of it; a fault has one.
	told     string
	reported bool
}

// keyRaft is what a dataKey needs of consensus.
type keyRaft interface {
	// Servers are the names of the Raft configuration.
	Servers() []string
	Leader() string
	Do(ctx context.Context, caller *provisionrv1.Caller, requestID string, cmd *raftlogv1.Command) (*provisionrv1.Version, error)
}

// keyHolder opens the data key for others.
type keyHolder interface {
	Admit(member string, sealingKey []byte) (*raftlogv1.Command, error)
	Evict(member string) ([]*raftlogv1.Command, error)
}

// keyFaults is what is wrong with who has the data key.
type keyFaults struct {
	// lacking are members without it, strangers have it and are none, able are members that have it. All are sorted.
	lacking, strangers, able []string
	// unfinished says that an exchange of the key was cut off: the former one still opens what was not sealed anew.
	unfinished bool
}

func faultsOf(s *state.Snapshot, servers []string) (f keyFaults) {
	key := s.SealedKey()
	if key == nil {
		return f
	}
	f.unfinished = key.GetNewest() != key.GetOldest()
	for name := range key.GetWrapped() {
		if s.Member(name) == nil {
			f.strangers = append(f.strangers, name)
		}
	}
	for _, name := range servers {
		switch {
		case s.Member(name) == nil: // it is about to be removed
		case key.GetWrapped()[name] == nil:
			f.lacking = append(f.lacking, name)
		default:
			f.able = append(f.able, name)
		}
	}
	slices.Sort(f.lacking)
	slices.Sort(f.strangers)
	slices.Sort(f.able)
	return f
}

// String is empty where nothing is wrong.
func (f keyFaults) String() string {
	var all []string
	if len(f.lacking) > 0 {
		all = append(all, "the data key is not wrapped for "+strings.Join(f.lacking, ", "))
	}
	if len(f.strangers) > 0 {
		all = append(all, "the data key is known to "+strings.Join(f.strangers, ", ")+", which is no member")
	}
	if f.unfinished {
		all = append(all, "an exchange of the data key was cut off")
	}
	return strings.Join(all, "; ")
}

// turn is how many others act before a member, or -1 if it cannot.
func (f keyFaults) turn(self, leader string) int {
	at := slices.Index(f.able, self)
	if at < 0 || self == leader {
		return min(at, 0)
	}
	if slices.Index(f.able, leader) > at {
		at++
	}
	return at
}

// run acts until ctx ends.
func (k *dataKey) run(ctx context.Context) error {
	for {
		changed := k.store.Watch(state.TableMembers, state.TableCluster)
		wait := k.step(ctx)
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-timer:
		}
	}
}

// step acts if it is time and returns when to look again, or 0: at the next change of the state.
func (k *dataKey) step(ctx context.Context) time.Duration {
	s := k.store.Read()
	f := faultsOf(s, k.raft.Servers())
	text := f.String()
	if text == "" {
		k.faults, k.row, k.due, k.pause, k.told, k.reported = "", nil, time.Time{}, 0, "", false
		return 0
	}
	turn := f.turn(k.self, k.raft.Leader())
	if text != k.faults || s.SealedKey() != k.row {
		k.pause = max(k.pause, keySettle)
		k.faults, k.row, k.due = text, s.SealedKey(), time.Now().Add(k.pause*time.Duration(1+max(turn, 0)))
	}
	if wait := time.Until(k.due); wait > 0 {
		return wait
	}
	if turn < 0 {
		k.wait(ctx, f)
	} else if err := k.mend(ctx, f); err == nil {
		return keySettle
	} else if ctx.Err() == nil && !errs.Is(err, errs.Conflict) { // someone else changes the key: it is looked at again
		k.warn(ctx, fmt.Sprintf("%s: server %s cannot mend it: %v", text, k.self, err), true)
	}
	k.pause = min(2*k.pause, maxKeyPause)
	k.due = time.Now().Add(k.pause)
	return k.pause
}

// wait tells that this member waits for another or, as the leader, that there is none to wait for.
func (k *dataKey) wait(ctx context.Context, f keyFaults) {
	switch {
	case len(f.able) == 0 && k.raft.Leader() == k.self:
		k.warn(ctx, "no server has the data key: none can open the cluster's secrets; restore a snapshot that one of them can open", true)
	case len(f.able) > 0 && slices.Contains(f.lacking, k.self):
		k.warn(ctx, "this server cannot open the cluster's secrets: it waits for one of "+strings.Join(f.able, ", ")+" to wrap the data key for it", false)
	}
}

// mend gives the data key to members that lack it. Where others know it too, everybody gets a new one instead.
func (k *dataKey) mend(ctx context.Context, f keyFaults) error {
	ctx, cancel := context.WithTimeout(ctx, keyTimeout)
	defer cancel()
	if len(f.strangers) > 0 || f.unfinished {
		commands, err := k.ca.Evict("")
		if err != nil {
			return err
		}
		for _, cmd := range commands {
			if err := k.do(ctx, cmd); err != nil {
				return err
			}
		}
		k.record(ctx, &provisionrv1.Event{Reason: "DataKeyReplaced", Message: "server " + k.self + " replaced the data key: " + f.String()})
		return nil
	}
	var failed error
	for _, name := range f.lacking {
		// One that cannot be given the key does not keep it from the others.
		if err := k.wrap(ctx, name); err != nil {
			failed = err
			continue
		}
		k.record(ctx, &provisionrv1.Event{Reason: "DataKeyWrapped", Message: "server " + k.self + " wrapped the data key for server " + name + ", which had none"})
	}
	return failed
}

func (k *dataKey) wrap(ctx context.Context, name string) error {
	cmd, err := k.ca.Admit(name, k.store.Read().Member(name).GetSealingKey())
	if err != nil {
		return err
	}
	return k.do(ctx, cmd)
}

func (k *dataKey) do(ctx context.Context, cmd *raftlogv1.Command) error {
	_, err := k.raft.Do(ctx, k.caller, rand.Text(), cmd)
	return err
}

// warn logs what is wrong when that changes, and records an event of it, if it is to, once until nothing is wrong.
func (k *dataKey) warn(ctx context.Context, message string, event bool) {
	if message != k.told {
		k.told = message
		k.log.Warn("the cluster's secrets cannot be opened everywhere", "reason", message)
	}
	if event && !k.reported {
		k.reported = true
		k.record(ctx, &provisionrv1.Event{Reason: "DataKeyFault", Warning: true, Message: message})
	}
}

func (k *dataKey) record(ctx context.Context, e *provisionrv1.Event) {
	if !e.GetWarning() {
		k.log.Info("the data key was mended", "event", e.GetReason(), "message", e.GetMessage())
	}
	ctx, cancel := context.WithTimeout(ctx, sayTimeout)
	defer cancel()
	err := k.do(ctx, &raftlogv1.Command{Kind: &raftlogv1.Command_RecordEvent{RecordEvent: &raftlogv1.RecordEvent{Event: e}}})
	if err != nil && ctx.Err() == nil {
		k.log.Warn("cannot record an event", "err", err)
	}
}
