package consensus

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/hashicorp/raft"

	"github.com/provisionr/provisionr/internal/errs"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
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
	file, err := n.spool(r)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	event, err := n.replace(ctx, file)
	if err != nil {
		return nil, err
	}
	// Reads wait for log entries: this is the first one above those of the history that was left.
	results, err := n.Propose(ctx, &raftlogv1.Request{
		Caller:  &provisionrv1.Caller{Name: n.config.Name, Kind: "server"},
		Command: &raftlogv1.Command{Kind: &raftlogv1.Command_RecordEvent{RecordEvent: &raftlogv1.RecordEvent{Event: event}}},
	})
	if err != nil {
		return nil, err
	}
	if results[0].Err != nil {
		return nil, results[0].Err
	}
	return results[0].Version, n.waitVersion(ctx, results[0].Version)
}

// replace puts the snapshot of the file in the place of the state. What is proposed meanwhile waits, and meets the restored
// state: in between it would be in neither, not even as what outlasts a restore.
func (n *Node) replace(ctx context.Context, file *os.File) (*provisionrv1.Event, error) {
	release, err := n.proposer.hold(ctx)
	if err != nil {
		return nil, raftError("restore the snapshot", err)
	}
	defer release()
	// Another may have led since it began.
	if err := n.VerifyLeader(ctx); err != nil {
		return nil, err
	}
	meta, event, err := n.prepare(file)
	if err != nil {
		return nil, err
	}
	return event, n.restore(meta, file)
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

// spool writes a snapshot to a file on the disk of the data directory, which has no name: no crash leaves it behind.
func (n *Node) spool(r io.Reader) (*os.File, error) {
	file, err := os.CreateTemp(n.config.DataDir, "restore-*.tmp")
	if err != nil {
		return nil, diskError("keep the snapshot", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		_ = file.Close()
		return nil, diskError("keep the snapshot", err)
	}
	size, err := io.Copy(file, io.LimitReader(r, maxSnapshot+1))
	if err == nil && size > maxSnapshot {
		err = errs.New(errs.Exhausted, "the snapshot is larger than %d bytes", int64(maxSnapshot))
	}
	if err != nil {
		_ = file.Close()
		return nil, errs.New(errs.KindOf(errs.FromRPC(err)), "cannot keep the snapshot in %s: %w", n.config.DataDir, err)
	}
	return file, nil
}
