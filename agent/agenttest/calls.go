package agenttest

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// piece is how much of a program one message carries.
const piece = 32 << 10

// Confirm implements agentv1.AgentServiceServer.
func (s *Server) Confirm(ctx context.Context, r *agentv1.ConfirmRequest) (*agentv1.ConfirmResponse, error) {
	if _, err := caller(ctx); err != nil {
		return nil, err
	}
	s.Lock()
	defer s.Unlock()
	s.Confirms++
	reply := &agentv1.ConfirmResponse{}
	for _, port := range r.Ports {
		one := &agentv1.Reach{Observer: "s1", Address: "127.0.0.1", Greeting: MachineID}
		if port == 22 {
			one.Greeting = "SSH-2.0-test"
		}
		if s.Reach != nil {
			one = s.Reach(port)
		}
		one.Port = port
		reply.Reached = append(reply.Reached, one)
	}
	return reply, nil
}

// Secrets implements agentv1.AgentServiceServer.
func (s *Server) Secrets(ctx context.Context, r *agentv1.SecretsRequest) (*agentv1.SecretsResponse, error) {
	if _, err := caller(ctx); err != nil {
		return nil, err
	}
	s.Lock()
	defer s.Unlock()
	reply := &agentv1.SecretsResponse{}
	for _, ref := range r.Secrets {
		value, ok := s.Values[ref.Name]
		if !ok {
			return nil, errs.New(errs.Denied, "cannot answer secret %s: the machine does not refer to it", ref.Name)
		}
		reply.Values = append(reply.Values, value)
	}
	return reply, nil
}

// CertifyHost implements agentv1.AgentServiceServer. A certificate is its key with a word before it.
func (s *Server) CertifyHost(ctx context.Context, r *agentv1.CertifyHostRequest) (*agentv1.CertifyHostResponse, error) {
	if _, err := caller(ctx); err != nil {
		return nil, err
	}
	reply := &agentv1.CertifyHostResponse{RenewAt: timestamppb.New(s.now().Add(15 * 24 * time.Hour))}
	for _, key := range r.PublicKeys {
		reply.Certificates = append(reply.Certificates, "certified "+key)
	}
	return reply, nil
}

// Fetch implements agentv1.AgentServiceServer.
func (s *Server) Fetch(r *agentv1.FetchRequest, stream grpc.ServerStreamingServer[agentv1.FetchResponse]) error {
	if _, err := caller(stream.Context()); err != nil {
		return err
	}
	var sum [sha256.Size]byte
	copy(sum[:], r.Sha256)
	s.Lock()
	content, ok := s.Programs[sum]
	s.Unlock()
	if !ok || r.Offset > uint64(len(content)) {
		return errs.New(errs.NotFound, "no program has the hash %x", r.Sha256)
	}
	size := uint64(len(content))
	for content = content[r.Offset:]; len(content) > 0; {
		n := min(piece, len(content))
		if err := stream.Send(&agentv1.FetchResponse{Data: content[:n], Size: size}); err != nil {
			return err
		}
		content, size = content[n:], 0
	}
	return nil
}

// Ask has the agent do one thing and returns its answer; reports that come meanwhile are acknowledged.
func (s *Session) Ask(t testing.TB, ask *agentv1.Ask) *agentv1.Answer {
	t.Helper()
	s.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_Ask{Ask: ask}})
	for {
		m := s.Next(t)
		if r := m.GetReport(); r != nil {
			s.Give(t, &agentv1.ServerMessage{Kind: &agentv1.ServerMessage_ReportAck{ReportAck: &agentv1.ReportAck{Sequence: r.Sequence}}})
		}
		if a := m.GetAnswer(); a.GetId() == ask.Id && a != nil {
			return a
		}
	}
}
