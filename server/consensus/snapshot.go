package consensus

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/provisionr/provisionr/internal/errs"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

const (
	// maxSnapshot bounds a snapshot that is restored, in bytes.
	maxSnapshot = 4 << 30
	// chunkSize of a snapshot on its way to the leader.
	chunkSize = 256 << 10
)

// SaveSnapshot writes the state as of now. The local state is brought up to the leader's first.
func (n *Node) SaveSnapshot(w io.Writer) error {
	if err := n.Sync(n.ctx, provisionrv1.Consistency_CONSISTENCY_LINEARIZABLE); err != nil {
		return err
	}
	s, err := n.config.FSM.Snapshot()
	if err != nil {
		return err
	}
	if err := s.Save(w); err != nil {
		return errs.New(errs.Internal, "cannot save the snapshot: %w", err)
	}
	return nil
}

// RestoreSnapshot replaces the state of the whole cluster by what SaveSnapshot wrote, through the leader, and begins a
// new incarnation. The members stay those of today. A snapshot that cannot be read whole, or is of another cluster,
// changes nothing.
func (n *Node) RestoreSnapshot(ctx context.Context, r io.Reader) error {
	leader := n.Leader()
	if leader == "" {
		return n.notLeader()
	}
	if leader == n.config.Name {
		_, err := n.RestoreLocal(ctx, r)
		return err
	}
	conn, err := n.config.Conns.Conn(ctx, leader)
	if err != nil {
		return err
	}
	stream, err := memberv1.NewMemberServiceClient(conn).Restore(ctx)
	if err != nil {
		return errs.FromRPC(err)
	}
	buf := make([]byte, chunkSize)
	for {
		read, err := io.ReadFull(r, buf)
		if read > 0 && stream.Send(&provisionrv1.SnapshotChunk{Data: buf[:read]}) != nil {
			// The answer says why.
			break
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return errs.New(errs.KindOf(err), "cannot read the snapshot: %w", err)
		}
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return errs.FromRPC(err)
	}
	return n.waitVersion(ctx, answer.GetVersion())
}

// RestoreLocal restores as the leader. The snapshot is first written down and tried, because Raft cannot turn back.
func (n *Node) RestoreLocal(ctx context.Context, r io.Reader) (*provisionrv1.Version, error) {
	if err := n.VerifyLeader(ctx); err != nil {
		return nil, err
	}
	if !n.restoring.CompareAndSwap(false, true) {
		return nil, errs.New(errs.Conflict, "another snapshot is being restored")
	}
	defer n.restoring.Store(false)
	file, size, err := n.spool(r)
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	version, saved, err := verifyFile(file)
	if err != nil {
		return nil, err
	}
	before := n.config.Store.Read()
	if present := before.Cluster(); present != nil && present.GetId() != saved.GetId() {
		return nil, errs.New(errs.Conflict, "the snapshot is of cluster %s (%s), this is %s (%s)",
			saved.GetName(), saved.GetId(), present.GetName(), present.GetId()).WithHint("restore it into a cluster that is not initialised")
	}
	if saved == nil {
		return nil, errs.New(errs.Invalid, "the snapshot is of a cluster that was not initialised")
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, diskError("read the snapshot", err)
	}
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: version.GetIndex(), Size: size}
	if err := n.restore(meta, file); err != nil {
		return nil, err
	}
	return n.begin(ctx, before, saved)
}

// restore has Raft take the snapshot. Raft replaces this member's state first and then sends it to the others; if this
// member stops leading in between, the others go on without it and its state is of no history at all. So that this is
// never unnoticed, also not after a crash, a mark in the data directory lasts from before until a majority has it.
func (n *Node) restore(meta *raft.SnapshotMeta, file *os.File) error {
	if n.alone() {
		if err := n.raft.Load().Restore(meta, file, writeTimeout); err != nil {
			return raftError("restore the snapshot", err)
		}
		return nil
	}
	if err := markRestore(n.config.DataDir); err != nil {
		return diskError("restore the snapshot", err)
	}
	replaced := n.restores.Load()
	if err := n.raft.Load().Restore(meta, file, writeTimeout); err != nil {
		if n.restores.Load() != replaced {
			interrupted := errInterrupted(n.config.DataDir)
			n.config.FSM.Stop(interrupted)
			return interrupted
		}
		return errors.Join(raftError("restore the snapshot", err), unmarkRestore(n.config.DataDir))
	}
	if err := unmarkRestore(n.config.DataDir); err != nil {
		return diskError("finish the restore", err)
	}
	return nil
}

func errInterrupted(dir string) *errs.Error {
	return errs.New(errs.Internal, "the restore of a snapshot was interrupted at this server before the others had it").
		WithHint("remove this server from the cluster, delete its data directory %s and let it join again; then repeat the restore", dir)
}

// spool writes a snapshot to a file of the data directory.
func (n *Node) spool(r io.Reader) (*os.File, int64, error) {
	file, err := os.CreateTemp(n.config.DataDir, "restore-*.tmp")
	if err != nil {
		return nil, 0, diskError("keep the snapshot", err)
	}
	size, err := io.Copy(file, io.LimitReader(r, maxSnapshot+1))
	if err == nil && size > maxSnapshot {
		err = errs.New(errs.Exhausted, "the snapshot is larger than %d bytes", int64(maxSnapshot))
	}
	if err != nil {
		_ = file.Close()
		_ = os.Remove(file.Name())
		return nil, 0, errs.New(errs.KindOf(errs.FromRPC(err)), "cannot keep the snapshot in %s: %w", filepath.Base(file.Name()), err)
	}
	return file, size, nil
}

func verifyFile(file *os.File) (*provisionrv1.Version, *provisionrv1.Cluster, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, nil, diskError("read the snapshot", err)
	}
	version, cluster, err := state.Verify(file)
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "cannot restore: %w", err).WithHint("the file must be one that provisionr cluster snapshot save wrote")
	}
	return version, cluster, nil
}

// begin starts a new incarnation after a restore: above both histories, the one that was left and the one restored.
func (n *Node) begin(ctx context.Context, before *state.Snapshot, saved *provisionrv1.Cluster) (*provisionrv1.Version, error) {
	left := before.Cluster()
	// Any serial from here on is above all serials that were handed out: the log index, which is added, is positive.
	base := saved.GetSerialBase() + uint32(saved.GetZoneIndex())
	if other := left.GetSerialBase() + uint32(left.GetZoneIndex()); left != nil && int32(other-base) > 0 {
		base = other
	}
	commands := []*raftlogv1.Command{{Kind: &raftlogv1.Command_BeginIncarnation{BeginIncarnation: &raftlogv1.BeginIncarnation{
		Incarnation: max(left.GetIncarnation(), saved.GetIncarnation()) + 1, SerialBase: base + 1,
	}}}}
	restored := n.config.Store.Read()
	for m := range restored.Members() {
		if before.Member(m.GetMetadata().GetName()) == nil {
			commands = append(commands, &raftlogv1.Command{Kind: &raftlogv1.Command_RemoveMember{
				RemoveMember: &raftlogv1.RemoveMember{Name: m.GetMetadata().GetName()}}})
		}
	}
	for m := range before.Members() {
		commands = append(commands, &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: m}}})
	}
	requests := make([]*raftlogv1.Request, len(commands))
	for i, c := range commands {
		requests[i] = &raftlogv1.Request{Caller: &provisionrv1.Caller{Name: n.config.Name, Kind: "server"}, Command: c}
	}
	results, err := n.Propose(ctx, requests...)
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		if r.Err != nil {
			return nil, r.Err
		}
	}
	return results[0].Version, n.waitVersion(ctx, results[0].Version)
}
