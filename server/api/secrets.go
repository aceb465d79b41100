package api

import (
	"context"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

type secretService struct {
	provisionrv1.UnimplementedSecretServiceServer
	*base
}

// secretTries bounds how often a value is sealed anew because another one, or another data key, was committed meanwhile.
const secretTries = 3

func (s *secretService) ListSecrets(ctx context.Context, req *provisionrv1.ListSecretsRequest) (*provisionrv1.ListSecretsResponse, error) {
	snapshot, err := s.read(ctx, req.Consistency)
	if err != nil {
		return nil, err
	}
	resp := &provisionrv1.ListSecretsResponse{Version: snapshot.Version()}
	for secret := range snapshot.Secrets() {
		info := &provisionrv1.SecretInfo{Metadata: secret.GetMetadata(), Revision: secret.GetRevision()}
		for p := range snapshot.PoolsWithSecret(secret.GetMetadata().GetName()) {
			info.Pools = append(info.Pools, p.GetMetadata().GetName())
		}
		resp.Secrets = append(resp.Secrets, info)
	}
	return resp, nil
}

// PutSecret seals the value here: in plain it is in no log entry and in no snapshot.
func (s *secretService) PutSecret(ctx context.Context, req *provisionrv1.PutSecretRequest) (*provisionrv1.WriteResponse, error) {
	uid := newID()
	for try := 1; ; try++ {
		snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
		if err != nil {
			return nil, err
		}
		secret := &provisionrv1.Secret{
			Metadata: &provisionrv1.Metadata{Name: req.Name}, Revision: snapshot.LastSecret(req.Name).GetRevision() + 1,
		}
		if secret.Ciphertext, secret.KeyVersion, err = s.Authority.SealSecret(req.Name, secret.Revision, req.Value); err != nil {
			return nil, err
		}
		resp, err := s.written(ctx, req.RequestId, &raftlogv1.Command{Kind: &raftlogv1.Command_PutSecret{
			PutSecret: &raftlogv1.PutSecret{Secret: secret, Uid: uid},
		}})
		// A request id keeps its first result.
		if !errs.Is(err, errs.Conflict) || req.RequestId != "" || try == secretTries {
			return resp, err
		}
	}
}

func (s *secretService) DeleteSecret(ctx context.Context, req *provisionrv1.DeleteSecretRequest) (*provisionrv1.WriteResponse, error) {
	return s.written(ctx, req.RequestId, deleteObject("secrets", req.Name))
}
