package consensus

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/fsm"
	"github.com/provisionr/provisionr/server/state"
)

// prepare rewrites a snapshot in its file: what of today's cluster outlasts a restore becomes part of it. So there is no
// state, after whatever crash, in which a server of today has no record. A snapshot that does not fit into this cluster is
// refused. The event says what was restored.
func (n *Node) prepare(file *os.File) (*raft.SnapshotMeta, *provisionrv1.Event, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, nil, diskError("read the snapshot", err)
	}
	scratch := state.New()
	if err := scratch.Restore(file); err != nil {
		return nil, nil, errs.New(errs.Invalid, "cannot restore: %w", err).WithHint("the file must be one that provisionr cluster snapshot save wrote")
	}
	before, saved := n.config.Store.Read(), scratch.Read()
	if err := fits(before, saved); err != nil {
		return nil, nil, err
	}
	event := restored(n.config.Name, before, saved)
	if err := amend(scratch, &provisionrv1.Caller{Name: n.config.Name, Kind: "server"}, outlasting(before, saved)); err != nil {
		return nil, nil, err
	}
	if err := file.Truncate(0); err != nil {
		return nil, nil, diskError("keep the snapshot", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, nil, diskError("keep the snapshot", err)
	}
	amended := scratch.Read()
	if err := amended.Save(file); err != nil {
		return nil, nil, diskError("keep the snapshot", err)
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, nil, diskError("read the snapshot", err)
	}
	return &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: amended.Version().GetIndex(), Size: size}, event, nil
}

// fits refuses a snapshot that would leave the cluster without an identity, with another one, or with secrets that no server
// can open.
func fits(before, saved *state.Snapshot) error {
	there, here := saved.Cluster(), before.Cluster()
	switch {
	case there == nil:
		return errs.New(errs.Invalid, "the snapshot is of a cluster that was not initialised")
	case here != nil && here.GetId() != there.GetId():
		return errs.New(errs.Conflict, "the snapshot is of cluster %s (%s), this is %s (%s)", there.GetName(), there.GetId(), here.GetName(), here.GetId()).
			WithHint("restore it into a cluster that is not initialised")
	case there.GetFeatureLevel() > fsm.Level:
		return errs.New(errs.Unsupported, "the snapshot needs feature level %d, this server has %d", there.GetFeatureLevel(), fsm.Level).
			WithHint("upgrade all servers first")
	case here == nil || saved.SealedKey() == nil:
		return nil
	}
	for m := range before.Members() {
		if name := m.GetMetadata().GetName(); saved.SealedKey().GetWrapped()[name] != nil && sameKey(saved.Member(name), m) {
			return nil
		}
	}
	return errs.New(errs.Conflict, "none of the servers can open the secrets of the snapshot: it is older than they all").
		WithHint("restore one that was taken after the first of today's servers had joined")
}

// sameKey reports whether the data key that was wrapped for one record of a server can be unwrapped by that of the other.
func sameKey(saved, now *provisionrv1.Member) bool {
	return bytes.Equal(saved.GetSealingKey(), now.GetSealingKey())
}

// outlasting returns what turns the saved state into the one to go on from: a new incarnation above both histories, the one
// that is left and the one that is restored, and the servers of today.
//
// A server that joined after the snapshot has no wrapped data key in it. Those that have one see to that: nothing here can
// open it. Of one that joined anew since then the key is taken out, as it cannot open that either.
func outlasting(before, saved *state.Snapshot) []*raftlogv1.Command {
	left, there := before.Cluster(), saved.Cluster()
	// Any serial from here on is above all serials that were handed out: the log index, which is added, is positive.
	base := there.GetSerialBase() + uint32(there.GetZoneIndex())
	if other := left.GetSerialBase() + uint32(left.GetZoneIndex()); left != nil && int32(other-base) > 0 {
		base = other
	}
	commands := []*raftlogv1.Command{{Kind: &raftlogv1.Command_BeginIncarnation{BeginIncarnation: &raftlogv1.BeginIncarnation{
		Incarnation: max(left.GetIncarnation(), there.GetIncarnation()) + 1, SerialBase: base + 1,
	}}}}
	for m := range saved.Members() {
		if name := m.GetMetadata().GetName(); before.Member(name) == nil {
			commands = append(commands, &raftlogv1.Command{Kind: &raftlogv1.Command_RemoveMember{RemoveMember: &raftlogv1.RemoveMember{Name: name}}})
		}
	}
	var key *raftlogv1.SealedKey
	for m := range before.Members() {
		commands = append(commands, &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: m}}})
		if name := m.GetMetadata().GetName(); saved.SealedKey().GetWrapped()[name] != nil && !sameKey(saved.Member(name), m) {
			if key == nil {
				key = proto.CloneOf(saved.SealedKey())
				key.Version++
			}
			delete(key.Wrapped, name)
		}
	}
	if key != nil {
		commands = append(commands, &raftlogv1.Command{Kind: &raftlogv1.Command_PutSealedKey{PutSealedKey: &raftlogv1.PutSealedKey{Key: key}}})
	}
	return commands
}

// amend applies commands to a state that nobody else has, as one log entry.
func amend(scratch *state.Store, caller *provisionrv1.Caller, commands []*raftlogv1.Command) error {
	entry := &raftlogv1.Entry{}
	for _, c := range commands {
		entry.Requests = append(entry.Requests, &raftlogv1.Request{
			Id: rand.Text(), Time: timestamppb.Now(), Caller: caller, FeatureLevel: fsm.Needs(c), Command: c,
		})
	}
	data, err := proto.Marshal(entry)
	if err != nil {
		return errs.New(errs.Internal, "cannot restore: %w", err)
	}
	machine := fsm.New(scratch, fsm.Level, slog.New(slog.DiscardHandler))
	results := machine.Apply(scratch.Read().Version().GetIndex()+1, data)
	if err := machine.Stopped(); err != nil {
		return errs.New(errs.KindOf(err), "cannot restore: %w", err)
	}
	for _, r := range results {
		if r.Err != nil {
			return errs.New(r.Err.Kind, "cannot restore: %w", r.Err)
		}
	}
	return nil
}

// restored says what is restored and which servers it does not agree on with today.
func restored(by string, before, saved *state.Snapshot) *provisionrv1.Event {
	var joined, left []string
	for m := range before.Members() {
		if name := m.GetMetadata().GetName(); saved.Member(name) == nil {
			joined = append(joined, name)
		}
	}
	for m := range saved.Members() {
		if name := m.GetMetadata().GetName(); before.Member(name) == nil {
			left = append(left, name)
		}
	}
	text := fmt.Sprintf("server %s restored a snapshot of entry %d of incarnation %d", by, saved.Version().GetIndex(), saved.Version().GetIncarnation())
	if len(joined) > 0 {
		text += "; joined since then and stay: " + strings.Join(joined, ", ")
	}
	if len(left) > 0 {
		text += "; were removed since then and stay so: " + strings.Join(left, ", ")
	}
	return &provisionrv1.Event{Reason: "SnapshotRestored", Message: text}
}
