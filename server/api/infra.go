package api

import (
	"context"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

type infraService struct {
	provisionrv1.UnimplementedInfraServiceServer
	*base
}

func (s *infraService) ListZones(ctx context.Context, req *provisionrv1.ListInfraRequest) (*provisionrv1.ListZonesResponse, error) {
	snapshot, err := s.read(ctx, req.Consistency)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.ListZonesResponse{Zones: slices.Collect(snapshot.WholeZones()), Version: snapshot.Version()}, nil
}

func (s *infraService) ListNetworks(ctx context.Context, req *provisionrv1.ListInfraRequest) (*provisionrv1.ListNetworksResponse, error) {
	snapshot, err := s.read(ctx, req.Consistency)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.ListNetworksResponse{Networks: slices.Collect(snapshot.Networks()), Version: snapshot.Version()}, nil
}

func (s *infraService) ListProviders(ctx context.Context, req *provisionrv1.ListInfraRequest) (*provisionrv1.ListProvidersResponse, error) {
	snapshot, err := s.read(ctx, req.Consistency)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.ListProvidersResponse{Providers: slices.Collect(snapshot.Providers()), Version: snapshot.Version()}, nil
}

func (s *infraService) DeleteInfra(ctx context.Context, req *provisionrv1.DeleteInfraRequest) (*provisionrv1.WriteResponse, error) {
	// The method must not be a way around those that delete pools, machines and users.
	switch req.Kind {
	case "zones", "networks", "providers":
		return s.written(ctx, req.RequestId, deleteObject(req.Kind, req.Name))
	}
	return nil, errs.New(errs.Invalid, "cannot delete %q: kind must be zones, networks or providers", req.Kind)
}

func (s *infraService) ListRecords(ctx context.Context, req *provisionrv1.ListRecordsRequest) (*provisionrv1.ListRecordsResponse, error) {
	snapshot, err := s.read(ctx, req.Consistency)
	if err != nil {
		return nil, err
	}
	resp := &provisionrv1.ListRecordsResponse{Version: snapshot.Version()}
	zone := strings.TrimSuffix(req.Zone, ".")
	for _, r := range s.Records(snapshot) {
		if zone == "" || strings.EqualFold(strings.TrimSuffix(r.GetZone(), "."), zone) {
			resp.Records = append(resp.Records, r)
		}
	}
	return resp, nil
}
