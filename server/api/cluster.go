package api

import (
	"context"
	"crypto/sha256"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/auth"
	"github.com/provisionr/provisionr/server/member"
)

type clusterService struct {
	provisionrv1.UnimplementedClusterServiceServer
	*base
}

func (s *clusterService) GetCluster(ctx context.Context, req *provisionrv1.GetClusterRequest) (*provisionrv1.GetClusterResponse, error) {
	snapshot, err := s.read(ctx, req.Consistency)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.GetClusterResponse{
		Cluster: snapshot.Cluster(), ServerVersion: s.Version, Leader: s.Raft.Leader(),
		Version: snapshot.Version(), Caller: auth.CallerOf(ctx),
	}, nil
}

func (s *clusterService) ListMembers(ctx context.Context, _ *provisionrv1.ListMembersRequest) (*provisionrv1.ListMembersResponse, error) {
	members, err := s.Raft.Members(ctx)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.ListMembersResponse{Members: members}, nil
}

// joinTokenTTL is how long a new server has to join.
const joinTokenTTL = time.Hour

func (s *clusterService) CreateJoinToken(ctx context.Context, _ *provisionrv1.CreateJoinTokenRequest) (*provisionrv1.CreateJoinTokenResponse, error) {
	token, err := s.Authority.NewServerToken()
	if err != nil {
		return nil, err
	}
	text, err := token.Encode()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(token.Secret)
	expires := timestamppb.New(time.Now().Add(joinTokenTTL))
	_, err = s.write(ctx, "", &raftlogv1.Command{Kind: &raftlogv1.Command_PutJoinToken{PutJoinToken: &raftlogv1.PutJoinToken{
		Token: &raftlogv1.JoinToken{Id: token.ID, SecretSha256: sum[:], Expires: expires},
	}}})
	if err != nil {
		return nil, err
	}
	return &provisionrv1.CreateJoinTokenResponse{Token: text, Expires: expires}, nil
}

// RemoveMember takes the data key from the member, then its record, then its vote. Each step may be repeated, so that a
// call that was interrupted is completed by calling again.
func (s *clusterService) RemoveMember(ctx context.Context, req *provisionrv1.RemoveMemberRequest) (*provisionrv1.WriteResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	others := 0
	for m := range snapshot.Members() {
		if m.GetMetadata().GetName() != req.Name {
			others++
		}
	}
	if others == 0 {
		return nil, errs.New(errs.Conflict, "cannot remove the only member").WithHint("join another server first")
	}
	version := snapshot.Version()
	if snapshot.Member(req.Name) != nil {
		if err := s.evict(ctx, req.Name); err != nil {
			return nil, err
		}
		remove := &raftlogv1.Command{Kind: &raftlogv1.Command_RemoveMember{RemoveMember: &raftlogv1.RemoveMember{Name: req.Name}}}
		if version, err = s.write(ctx, "", remove); err != nil {
			return nil, err
		}
	}
	if err := s.Raft.RemoveMember(ctx, req.Name); err != nil {
		return nil, err
	}
	return &provisionrv1.WriteResponse{Version: version}, nil
}

// evictTries bounds how often the data key is exchanged because a secret was set meanwhile, which the new key would not open.
const evictTries = 3

// evict gives the other members a new data key, and everything that is encrypted to it.
func (s *clusterService) evict(ctx context.Context, member string) error {
	for try := 1; ; try++ {
		commands, err := s.Authority.Evict(member)
		if err != nil {
			return err
		}
		for _, cmd := range commands {
			if _, err = s.write(ctx, "", cmd); err != nil {
				break
			}
		}
		if !errs.Is(err, errs.Conflict) || try == evictTries {
			return err
		}
	}
}

// chunkSize is how much of a snapshot goes into one message, in bytes.
const chunkSize = 64 << 10

func (s *clusterService) SaveSnapshot(_ *provisionrv1.SaveSnapshotRequest, stream grpc.ServerStreamingServer[provisionrv1.SnapshotChunk]) error {
	if err := s.Syncer.Sync(stream.Context(), provisionrv1.Consistency_CONSISTENCY_LINEARIZABLE); err != nil {
		return err
	}
	return s.Archive.SaveSnapshot(chunkWriter{stream})
}

type chunkWriter struct {
	stream grpc.ServerStreamingServer[provisionrv1.SnapshotChunk]
}

func (w chunkWriter) Write(data []byte) (int, error) {
	for done := 0; done < len(data); {
		n := min(chunkSize, len(data)-done)
		// The writer may use its buffer again: gRPC encodes before Send returns, the loopback has no streams of snapshots.
		if err := w.stream.Send(&provisionrv1.SnapshotChunk{Data: data[done : done+n]}); err != nil {
			return done, err
		}
		done += n
	}
	return len(data), nil
}

func (s *clusterService) RestoreSnapshot(stream grpc.ClientStreamingServer[provisionrv1.SnapshotChunk, provisionrv1.WriteResponse]) error {
	if err := s.Archive.RestoreSnapshot(stream.Context(), member.NewChunkReader(stream)); err != nil {
		return err
	}
	return stream.SendAndClose(&provisionrv1.WriteResponse{Version: s.State.Read().Version()})
}
