package api

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/auth"
)

type accessService struct {
	provisionrv1.UnimplementedAccessServiceServer
	*base
}

// Lifetimes of tokens.
const (
	defaultTokenTTL = 90 * 24 * time.Hour
	maxTokenTTL     = 365 * 24 * time.Hour
)

func (s *accessService) ListUsers(ctx context.Context, _ *provisionrv1.ListUsersRequest) (*provisionrv1.ListUsersResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.ListUsersResponse{Users: slices.Collect(snapshot.Users())}, nil
}

func (s *accessService) DeleteUser(ctx context.Context, req *provisionrv1.DeleteUserRequest) (*provisionrv1.WriteResponse, error) {
	return s.written(ctx, "", deleteObject("users", req.Name))
}

func (s *accessService) IssueCertificate(ctx context.Context, req *provisionrv1.IssueCertificateRequest) (*provisionrv1.IssueCertificateResponse, error) {
	ttl, err := bounded("ttl", req.Ttl, pki.UserTTL, pki.MaxUserTTL)
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseCSR(req.Csr)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	if snapshot.User(req.User) == nil {
		return nil, notFound("user", req.User)
	}
	id := pki.ID{Cluster: snapshot.Cluster().GetId(), Kind: pki.User, Name: req.User}
	chain, err := s.Authority.Issue(id, key, ttl)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.IssueCertificateResponse{Certificate: string(chain)}, nil
}

func (s *accessService) ListTokens(ctx context.Context, _ *provisionrv1.ListTokensRequest) (*provisionrv1.ListTokensResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	resp := &provisionrv1.ListTokensResponse{}
	for t := range snapshot.Tokens() {
		resp.Tokens = append(resp.Tokens, withoutHash(t))
	}
	return resp, nil
}

// withoutHash leaves out what nobody needs to see.
func withoutHash(t *provisionrv1.Token) *provisionrv1.Token {
	return &provisionrv1.Token{Metadata: t.GetMetadata(), User: t.GetUser(), Role: t.GetRole(), Expires: t.GetExpires()}
}

func (s *accessService) CreateToken(ctx context.Context, req *provisionrv1.CreateTokenRequest) (*provisionrv1.CreateTokenResponse, error) {
	ttl, err := bounded("ttl", req.Ttl, defaultTokenTTL, maxTokenTTL)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	owner := cmp.Or(req.User, auth.CallerOf(ctx).GetName())
	user := snapshot.User(owner)
	if user == nil {
		return nil, notFound("user", owner)
	}
	role := req.Role
	if role == provisionrv1.Role_ROLE_UNSPECIFIED {
		role = user.GetSpec().GetRole()
	}
	name := req.Name
	if name == "" {
		name = "t-" + newID()[:12]
	}
	secret, sum := auth.NewToken(name)
	token := &provisionrv1.Token{
		Metadata: &provisionrv1.Metadata{Name: name}, User: owner, Role: role,
		SecretSha256: sum, Expires: timestamppb.New(time.Now().Add(ttl)),
	}
	_, err = s.write(ctx, "", &raftlogv1.Command{Kind: &raftlogv1.Command_ApplyObjects{ApplyObjects: &raftlogv1.ApplyObjects{
		Objects: []*provisionrv1.Object{{Kind: &provisionrv1.Object_Token{Token: token}}},
		Uids:    []string{newID()},
	}}})
	if err != nil {
		return nil, err
	}
	shown := token
	if row := s.State.Read().Token(name); row != nil {
		shown = row
	}
	return &provisionrv1.CreateTokenResponse{Token: withoutHash(shown), Secret: secret}, nil
}

func (s *accessService) DeleteToken(ctx context.Context, req *provisionrv1.DeleteTokenRequest) (*provisionrv1.WriteResponse, error) {
	return s.written(ctx, "", deleteObject("tokens", req.Name))
}
