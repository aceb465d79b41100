package api

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/auth"
)

// Lifetimes of user certificates for ssh.
const (
	defaultSSHTTL = time.Hour
	maxSSHTTL     = 24 * time.Hour
)

func (s *accessService) SignSshKey(ctx context.Context, req *provisionrv1.SignSshKeyRequest) (*provisionrv1.SignSshKeyResponse, error) {
	ttl, err := bounded("ttl", req.Ttl, defaultSSHTTL, maxSSHTTL)
	if err != nil {
		return nil, err
	}
	caller := auth.CallerOf(ctx)
	// What a credential gives must not outlive it.
	if s := auth.FromContext(ctx); s != nil && !s.Expires.IsZero() {
		if ttl = min(ttl, time.Until(s.Expires)); ttl <= 0 {
			return nil, errs.New(errs.Unauthenticated, "cannot certify a key: the credential has ended")
		}
	}
	signed, err := s.Authority.SignUser(req.PublicKey, caller.GetKind()+" "+caller.GetName(), sshPrincipals(caller), ttl)
	if err != nil {
		return nil, err
	}
	// What sshd logs is the serial: this line says whose it is.
	s.Logger.LogAttrs(ctx, slog.LevelInfo, "key certified for ssh", slog.String("caller", caller.GetName()), slog.Uint64("serial", signed.Serial),
		slog.Any("principals", signed.Principals), slog.Time("expires", signed.Expires))
	return &provisionrv1.SignSshKeyResponse{
		Certificate: signed.Line, Principals: signed.Principals, Expires: timestamppb.New(signed.Expires),
	}, nil
}

// sshPrincipals are the caller's name and the roles that it has and that accounts are made for.
func sshPrincipals(caller *provisionrv1.Caller) []string {
	principals := []string{caller.GetName()}
	if caller.GetRole() >= provisionrv1.Role_ROLE_OPERATOR {
		principals = append(principals, "role:operator")
	}
	if caller.GetRole() >= provisionrv1.Role_ROLE_ADMIN {
		principals = append(principals, "role:admin")
	}
	return principals
}

func (s *accessService) GetSshAuthorities(ctx context.Context, _ *provisionrv1.GetSshAuthoritiesRequest) (*provisionrv1.GetSshAuthoritiesResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	resp := &provisionrv1.GetSshAuthoritiesResponse{PublicKeys: s.Authority.SSHAuthorities()}
	for z := range snapshot.Zones() {
		resp.Domains = append(resp.Domains, z.GetSpec().GetDomain())
	}
	return resp, nil
}
