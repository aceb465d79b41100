package member

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
)

// OnlyMembers returns options by which a server made with [NewServer] refuses callers that are no members, as one that was
// removed and whose certificate is still good. TLS has verified the certificate by then. The refusal is Unavailable: this
// member may only lag behind.
//
// Raft's own streams are not asked: a member that lags behind must take entries of a leader that it has not heard of.
func OnlyMembers(known func(name string) bool) []grpc.ServerOption {
	check := func(ctx context.Context) error {
		var name string
		if p, ok := peer.FromContext(ctx); ok {
			if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
				id, err := pki.FromCert(info.State.PeerCertificates[0])
				if err != nil {
					return err
				}
				name = id.Name
			}
		}
		if name == "" || !known(name) {
			return errs.New(errs.Unavailable, "server %q is not a member as far as this server knows", name)
		}
		return nil
	}
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if err := check(ctx); err != nil {
				return nil, err
			}
			return handler(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := check(stream.Context()); err != nil {
				return err
			}
			return handler(srv, stream)
		}),
	}
}
