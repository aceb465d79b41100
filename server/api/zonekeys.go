package api

import (
	"context"
	"fmt"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// ZoneKeys has the DNSSEC keys of zones. Package zonekeys has the one.
type ZoneKeys interface {
	// List returns the keys of an origin, or of all for an empty one.
	List(s *state.Snapshot, origin string) []*provisionrv1.ZoneKeyInfo
	// Roll returns the command that publishes a new key, Activate the one that has it sign.
	Roll(s *state.Snapshot, origin string) (*raftlogv1.Command, error)
	Activate(s *state.Snapshot, origin string, tag uint32) (*raftlogv1.Command, error)
}

// noZoneKeys is what there is where no zone can be signed.
type noZoneKeys struct{}

func (noZoneKeys) List(*state.Snapshot, string) []*provisionrv1.ZoneKeyInfo { return nil }

func (noZoneKeys) Roll(*state.Snapshot, string) (*raftlogv1.Command, error) {
	return nil, errs.New(errs.Unsupported, "this server signs no zones")
}

func (n noZoneKeys) Activate(s *state.Snapshot, origin string, _ uint32) (*raftlogv1.Command, error) {
	return n.Roll(s, origin)
}

func (s *infraService) ListZoneKeys(ctx context.Context, req *provisionrv1.ListZoneKeysRequest) (*provisionrv1.ListZoneKeysResponse, error) {
	snapshot, err := s.read(ctx, req.Consistency)
	if err != nil {
		return nil, err
	}
	return &provisionrv1.ListZoneKeysResponse{Keys: s.ZoneKeys.List(snapshot, req.Origin), Version: snapshot.Version()}, nil
}

func (s *infraService) RollZoneKey(ctx context.Context, req *provisionrv1.RollZoneKeyRequest) (*provisionrv1.WriteResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	command, err := s.ZoneKeys.Roll(snapshot, req.Origin)
	if err != nil {
		return nil, err
	}
	return s.written(ctx, req.RequestId, command)
}

func (s *infraService) ActivateZoneKey(ctx context.Context, req *provisionrv1.ActivateZoneKeyRequest) (*provisionrv1.WriteResponse, error) {
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	command, err := s.ZoneKeys.Activate(snapshot, req.Origin, req.Tag)
	if err != nil {
		return nil, err
	}
	return s.written(ctx, req.RequestId, command)
}

// zoneConsequences says what a change of a zone means for those who ask for its names.
func zoneConsequences(snapshot *state.Snapshot, before, after *provisionrv1.Zone, c *provisionrv1.Change) {
	if signs(before) && !signs(after) {
		c.Warnings = append(c.Warnings, "the zone is not signed any more: as long as its parent zone has a DS record, nobody who validates can reach it")
	}
	for _, k := range after.GetSpec().GetTransfer().GetKeys() {
		if secret := k.GetSecret(); snapshot.Secret(secret) == nil {
			c.Warnings = append(c.Warnings, fmt.Sprintf("secret %s does not exist yet: key %s opens no transfer until it is set with `provisionr secret set %s`", secret, k.GetName(), secret))
		}
	}
}

func signs(z *provisionrv1.Zone) bool {
	mode := z.GetSpec().GetDnssec()
	return mode != "" && mode != "off"
}
