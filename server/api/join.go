package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/ca"
)

type joinService struct {
	memberv1.UnimplementedJoinServiceServer
	*base
}

// maxAdmits bounds how often a wrapped data key is written again because another member was admitted meanwhile.
const maxAdmits = 5

// Join admits a server that shows a join token. The token is used up in the log first, for this member only; a server
// that was interrupted may call again with the same token and name. That there is a record with a data key is all that the
// leader needs to add the member to Raft.
func (s *joinService) Join(ctx context.Context, req *memberv1.JoinRequest) (*memberv1.JoinResponse, error) {
	name := req.GetMember().GetMetadata().GetName()
	key, err := pki.ParseCSR(req.GetCsr())
	if err != nil {
		return nil, err
	}
	if len(req.GetSecret()) != sha256.Size || len(req.GetTokenId()) > maxRequestID {
		return nil, errs.New(errs.Unauthenticated, "cannot accept join token: it is unknown or wrong")
	}
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	if id := (pki.ID{Cluster: snapshot.Cluster().GetId(), Kind: pki.Server, Name: name}); !id.Valid() {
		return nil, errs.New(errs.Invalid, "cannot admit a member named %q: not a DNS label", name)
	}
	// Who calls is not known yet: the log says that it is the server that the token makes a member.
	caller := &provisionrv1.Caller{Name: name, Kind: string(pki.Server)}
	if err := s.useToken(ctx, caller, snapshot.JoinToken(req.TokenId), req); err != nil {
		return nil, err
	}
	chain, err := s.Authority.IssueServer(name, key, hostsOf(req.Member))
	if err != nil {
		return nil, err
	}
	member := &provisionrv1.Member{
		Metadata:    &provisionrv1.Metadata{Name: name, Labels: req.Member.Metadata.GetLabels()},
		RaftAddress: req.Member.RaftAddress, ApiAddress: req.Member.ApiAddress, AgentAddress: req.Member.AgentAddress,
		DnsAddress: req.Member.DnsAddress, SealingKey: req.Member.SealingKey, FeatureLevel: req.Member.FeatureLevel,
		Version: req.Member.Version, NetworkHosts: req.Member.NetworkHosts,
	}
	put := &raftlogv1.Command{Kind: &raftlogv1.Command_PutMember{PutMember: &raftlogv1.PutMember{Member: member}}}
	if _, err := s.Proposer.Do(ctx, caller, newID(), put); err != nil {
		return nil, err
	}
	if err := s.admit(ctx, caller, name, req.Member.SealingKey); err != nil {
		return nil, err
	}
	snapshot = s.State.Read()
	return &memberv1.JoinResponse{
		Certificate: chain, Roots: s.Authority.RootsPEM(), ClusterId: snapshot.Cluster().GetId(),
		Members: slices.Collect(snapshot.Members()),
	}, nil
}

// useToken uses the token up through the log, where it can be used for one member only. The secret is compared here first:
// a stranger who has none must not be able to write to the log, nor learn the members' names. A member that exists already
// is refused unless this token made it: else a token would let its bearer take over a member's name.
func (s *joinService) useToken(ctx context.Context, caller *provisionrv1.Caller, token *raftlogv1.JoinToken, req *memberv1.JoinRequest) error {
	sum := sha256.Sum256(req.Secret)
	if subtle.ConstantTimeCompare(token.GetSecretSha256(), sum[:]) != 1 {
		return errs.New(errs.Denied, "cannot accept join token: it is unknown or wrong").WithHint("make a new one: provisionr cluster join-token")
	}
	if s.State.Read().Member(caller.Name) != nil && token.GetUsedBy() != caller.Name {
		return errs.New(errs.Exists, "cannot admit %q: there is a member of that name", caller.Name).
			WithHint("choose another name, or remove the old member first")
	}
	_, err := s.Proposer.Do(ctx, caller, newID(), &raftlogv1.Command{Kind: &raftlogv1.Command_UseJoinToken{
		UseJoinToken: &raftlogv1.UseJoinToken{Id: req.TokenId, SecretSha256: sum[:], Member: caller.Name},
	}})
	return err
}

// admit wraps the data key for the member, again if another change of the key came in between.
func (s *joinService) admit(ctx context.Context, caller *provisionrv1.Caller, name string, sealingKey []byte) error {
	for range maxAdmits {
		cmd, err := s.Authority.Admit(name, sealingKey)
		if err != nil {
			return err
		}
		_, err = s.Proposer.Do(ctx, caller, newID(), cmd)
		if err == nil && s.State.Read().SealedKey().GetWrapped()[name] != nil {
			return nil
		}
		if err != nil && !errs.Is(err, errs.Conflict) {
			return err
		}
		if err := s.Syncer.Sync(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER); err != nil {
			return err
		}
	}
	return errs.New(errs.Unavailable, "cannot admit %q: the data key changed %d times meanwhile", name, maxAdmits).WithHint("try again")
}

// hostsOf returns the names and addresses by which callers reach the member, for its certificate.
func hostsOf(m *provisionrv1.Member) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	add := func(h string) {
		if h != "" && !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	for _, address := range []string{m.GetApiAddress(), m.GetAgentAddress(), m.GetRaftAddress()} {
		if host, _, err := net.SplitHostPort(address); err == nil {
			add(host)
		}
	}
	for _, host := range m.GetNetworkHosts() {
		add(host)
	}
	return hosts
}

// JoinCluster asks a member at address (host:port of its API) to admit this server, which it knows by the token's pin.
// The member's metadata name, addresses and sealing key must be set.
func JoinCluster(ctx context.Context, address string, token ca.ServerToken, csr []byte, member *provisionrv1.Member) (*memberv1.JoinResponse, error) {
	config, err := pki.ClientTLS(pki.ClientConfig{Pins: []string{token.Pin}, Protocols: []string{"h2"}})
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot dial %s: %w", address, err)
	}
	resp, err := memberv1.NewJoinServiceClient(conn).Join(ctx, &memberv1.JoinRequest{
		TokenId: token.ID, Secret: token.Secret, Csr: csr, Member: proto.CloneOf(member),
	})
	if closeErr := conn.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, errs.FromRPC(err)
	}
	return resp, nil
}
