package member

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

// Consensus does what the leader does for other members. Every method but Status is refused with Unavailable by a
// member that does not lead: the caller finds the new leader itself.
type Consensus interface {
	ProposeLocal(ctx context.Context, requests []*raftlogv1.Request) ([]*memberv1.Result, error)
	ReadIndexLocal(ctx context.Context, verify bool) (uint64, error)
	AddServerLocal(ctx context.Context, name, raftAddress string) error
	RemoveServerLocal(ctx context.Context, name string) error
	RestoreLocal(ctx context.Context, r io.Reader) (*provisionrv1.Version, error)
	Status() *provisionrv1.MemberStatus
}

// Sessions are the agents connected to this member. Unlike what callers of the API use, Exec, Verify and Ask reach only
// them and never go on to another member.
type Sessions interface {
	// LocalSessions answers the ids of connected machines and a revision that changes with them, never 0.
	LocalSessions() (revision uint64, machines []string)
	LocalExec(ctx context.Context, machineID, slot string, req *provisionrv1.ExecRequest, send func(*provisionrv1.ExecResponse) error) error
	LocalVerify(ctx context.Context, machineID string) error
	LocalAsk(ctx context.Context, machineID string, ask *agentv1.Ask) (*agentv1.Answer, error)
}

// Service answers MemberService.
type Service struct {
	memberv1.UnimplementedMemberServiceServer
	consensus Consensus
	sessions  Sessions
}

// NewService returns the service. Sessions may be nil: then this member has none.
func NewService(consensus Consensus, sessions Sessions) *Service {
	return &Service{consensus: consensus, sessions: sessions}
}

// NewServer returns a gRPC server for [Listener.GRPC] with the bounds of this package and the service registered.
func NewServer(s *Service, options ...grpc.ServerOption) *grpc.Server {
	options = append([]grpc.ServerOption{
		grpc.Creds(ServerCredentials()), grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage), grpc.MaxConcurrentStreams(4096),
	}, options...)
	server := grpc.NewServer(options...)
	memberv1.RegisterMemberServiceServer(server, s)
	return server
}

// Propose implements MemberService.
func (s *Service) Propose(ctx context.Context, req *memberv1.ProposeRequest) (*memberv1.ProposeResponse, error) {
	results, err := s.consensus.ProposeLocal(ctx, req.GetRequests())
	if err != nil {
		return nil, err
	}
	return &memberv1.ProposeResponse{Results: results}, nil
}

// ReadIndex implements MemberService.
func (s *Service) ReadIndex(ctx context.Context, req *memberv1.ReadIndexRequest) (*memberv1.ReadIndexResponse, error) {
	index, err := s.consensus.ReadIndexLocal(ctx, req.GetVerify())
	if err != nil {
		return nil, err
	}
	return &memberv1.ReadIndexResponse{Index: index}, nil
}

// AddServer implements MemberService.
func (s *Service) AddServer(ctx context.Context, req *memberv1.AddServerRequest) (*memberv1.ChangeServersResponse, error) {
	return &memberv1.ChangeServersResponse{}, s.consensus.AddServerLocal(ctx, req.GetName(), req.GetRaftAddress())
}

// RemoveServer implements MemberService.
func (s *Service) RemoveServer(ctx context.Context, req *memberv1.RemoveServerRequest) (*memberv1.ChangeServersResponse, error) {
	return &memberv1.ChangeServersResponse{}, s.consensus.RemoveServerLocal(ctx, req.GetName())
}

// Restore implements MemberService.
func (s *Service) Restore(stream grpc.ClientStreamingServer[provisionrv1.SnapshotChunk, provisionrv1.WriteResponse]) error {
	version, err := s.consensus.RestoreLocal(stream.Context(), NewChunkReader(stream))
	if err != nil {
		return err
	}
	return stream.SendAndClose(&provisionrv1.WriteResponse{Version: version})
}

// ChunkStream is the receiving side of a stream of chunks.
type ChunkStream interface {
	Recv() (*provisionrv1.SnapshotChunk, error)
}

// NewChunkReader reads the bytes of a stream of chunks.
func NewChunkReader(stream ChunkStream) io.Reader { return &chunkReader{stream: stream} }

type chunkReader struct {
	stream ChunkStream
	rest   []byte
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		chunk, err := r.stream.Recv()
		if err != nil {
			return 0, err
		}
		r.rest = chunk.GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Status implements MemberService.
func (s *Service) Status(context.Context, *memberv1.StatusRequest) (*provisionrv1.MemberStatus, error) {
	status := s.consensus.Status()
	if s.sessions != nil {
		_, machines := s.sessions.LocalSessions()
		status.Sessions = uint32(len(machines))
	}
	return status, nil
}

// Sessions implements MemberService.
func (s *Service) Sessions(_ context.Context, req *memberv1.SessionsRequest) (*memberv1.SessionsResponse, error) {
	if s.sessions == nil {
		return &memberv1.SessionsResponse{Revision: 1, Unchanged: req.GetRevision() == 1}, nil
	}
	revision, machines := s.sessions.LocalSessions()
	if revision == req.GetRevision() {
		return &memberv1.SessionsResponse{Revision: revision, Unchanged: true}, nil
	}
	return &memberv1.SessionsResponse{Revision: revision, Machines: machines}, nil
}

// Exec implements MemberService.
func (s *Service) Exec(req *memberv1.ExecRequest, stream grpc.ServerStreamingServer[provisionrv1.ExecResponse]) error {
	if s.sessions == nil {
		return noSession(req.GetMachineId())
	}
	return s.sessions.LocalExec(stream.Context(), req.GetMachineId(), req.GetSlot(), req.GetExec(), stream.Send)
}

// Verify implements MemberService.
func (s *Service) Verify(ctx context.Context, req *memberv1.VerifyRequest) (*memberv1.VerifyResponse, error) {
	if s.sessions == nil {
		return nil, noSession(req.GetMachineId())
	}
	ctx, cancel := within(ctx, req.GetTimeout())
	defer cancel()
	return &memberv1.VerifyResponse{}, s.sessions.LocalVerify(ctx, req.GetMachineId())
}

// Ask implements MemberService.
func (s *Service) Ask(ctx context.Context, req *memberv1.AskRequest) (*agentv1.Answer, error) {
	if s.sessions == nil {
		return nil, noSession(req.GetMachineId())
	}
	ctx, cancel := within(ctx, req.GetTimeout())
	defer cancel()
	return s.sessions.LocalAsk(ctx, req.GetMachineId(), req.GetAsk())
}

// within bounds ctx by what a request says, if it does.
func within(ctx context.Context, wait *durationpb.Duration) (context.Context, context.CancelFunc) {
	if wait.IsValid() && wait.AsDuration() > 0 {
		return context.WithTimeout(ctx, wait.AsDuration())
	}
	return ctx, func() {}
}

func noSession(machine string) error {
	return errs.New(errs.Unavailable, "machine %s has no session with this server", machine)
}
