package api

import (
	"context"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

type poolService struct {
	provisionrv1.UnimplementedPoolServiceServer
	*base
}

func (s *poolService) ListPools(ctx context.Context, req *provisionrv1.ListPoolsRequest) (*provisionrv1.ListPoolsResponse, error) {
	snapshot, err := s.poll(ctx, req.Consistency, s.pools, req.Index, req.Wait)
	if err != nil {
		return nil, err
	}
	resp := &provisionrv1.ListPoolsResponse{Version: snapshot.Version()}
	for p := range snapshot.Pools() {
		resp.Pools = append(resp.Pools, withStatus(snapshot, p))
	}
	return resp, nil
}

func (s *poolService) GetPool(ctx context.Context, req *provisionrv1.GetPoolRequest) (*provisionrv1.Pool, error) {
	snapshot, err := s.poll(ctx, req.Consistency, s.pools, req.Index, req.Wait)
	if err != nil {
		return nil, err
	}
	p := snapshot.Pool(req.Name)
	if p == nil {
		return nil, notFound("pool", req.Name)
	}
	return withStatus(snapshot, p), nil
}

// withStatus returns the pool with its derived status; all else is shared with the row.
func withStatus(snapshot *state.Snapshot, p *provisionrv1.Pool) *provisionrv1.Pool {
	return &provisionrv1.Pool{
		ApiVersion: p.ApiVersion, Kind: p.Kind, Metadata: p.Metadata, Spec: p.Spec,
		Status: state.PoolStatus(snapshot, p),
	}
}

func (s *poolService) DeletePool(ctx context.Context, req *provisionrv1.DeletePoolRequest) (*provisionrv1.WriteResponse, error) {
	return s.written(ctx, req.RequestId, deleteObject("pools", req.Name))
}

func (s *poolService) ScalePool(ctx context.Context, req *provisionrv1.ScalePoolRequest) (*provisionrv1.WriteResponse, error) {
	return s.written(ctx, req.RequestId, &raftlogv1.Command{Kind: &raftlogv1.Command_ScalePool{
		ScalePool: &raftlogv1.ScalePool{Name: req.Name, Size: req.Size},
	}})
}

func (s *poolService) ListProofs(ctx context.Context, req *provisionrv1.ListProofsRequest) (*provisionrv1.ListProofsResponse, error) {
	snapshot, err := s.read(ctx, req.Consistency)
	if err != nil {
		return nil, err
	}
	return proofs(snapshot, req.Pool)
}

func proofs(snapshot *state.Snapshot, pool string) (*provisionrv1.ListProofsResponse, error) {
	if snapshot.Pool(pool) == nil {
		return nil, notFound("pool", pool)
	}
	resp := &provisionrv1.ListProofsResponse{Version: snapshot.Version()}
	for m := range snapshot.MachinesOf(pool) {
		if m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_GONE {
			continue
		}
		resp.Machines = append(resp.Machines, m)
		for p := range snapshot.Proofs(m.GetMetadata().GetName()) {
			resp.Proofs = append(resp.Proofs, p)
		}
	}
	return resp, nil
}

const (
	defaultVerifyTimeout = 60 * time.Second
	maxVerifyTimeout     = 10 * time.Minute
)

// VerifyPool leaves out machines without a session; one that has a session and does not answer is an error, for the
// matrix would show old proofs as if they were new.
func (s *poolService) VerifyPool(ctx context.Context, req *provisionrv1.VerifyPoolRequest) (*provisionrv1.ListProofsResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	if snapshot.Pool(req.Pool) == nil {
		return nil, notFound("pool", req.Pool)
	}
	timeout, err := bounded("timeout", req.Timeout, defaultVerifyTimeout, maxVerifyTimeout)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var silent failures
	fanOut(livingOf(snapshot, req.Pool), func(m *provisionrv1.Machine) {
		err := s.Agents.Verify(limited, m.GetMetadata().GetName())
		if err != nil && !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NotFound) {
			silent.add(m.GetSpec().GetSlot(), err)
		}
	})
	if err := silent.err("verify"); err != nil {
		return nil, err
	}
	if snapshot, err = s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER); err != nil {
		return nil, err
	}
	return proofs(snapshot, req.Pool)
}
