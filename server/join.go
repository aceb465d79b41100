package server

import (
	"context"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/api"
	"github.com/provisionr/provisionr/server/ca"
)

// joinTimeout bounds the whole join.
const joinTimeout = 60 * time.Second

// joinCluster trades a join token for a certificate and settles the identity.
func joinCluster(ctx context.Context, c Config, id *identity, self *provisionrv1.Member) error {
	token, err := ca.ParseServerToken(c.JoinToken)
	if err != nil {
		return err
	}
	csr, err := pki.NewCSR(id.store.Key())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	answer, err := api.JoinCluster(ctx, c.JoinAddress, token, csr, self)
	if err != nil {
		return errs.New(errs.KindOf(err), "cannot join the cluster through %s: %w", c.JoinAddress, err).
			WithHint("make a new token with `provisionr cluster join-token` and check that the address is a member's API port")
	}
	return id.settle(who{Cluster: answer.ClusterId, Name: c.Name}, answer.Certificate, answer.Roots)
}
