package session

import (
	"context"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// LocalSessions is [Hub.Sessions], for the other members. The revision is never 0.
func (h *Hub) LocalSessions() (revision uint64, machineIDs []string) { return h.Sessions() }

// LocalExec is [Hub.Exec], for the other members.
func (h *Hub) LocalExec(ctx context.Context, machineID, slot string, req *provisionrv1.ExecRequest, send func(*provisionrv1.ExecResponse) error) error {
	return h.Exec(ctx, machineID, slot, req, send)
}

// LocalVerify is [Hub.Verify], for the other members.
func (h *Hub) LocalVerify(ctx context.Context, machineID string) error {
	return h.Verify(ctx, machineID)
}

// LocalAsk is [Hub.Ask], for the other members.
func (h *Hub) LocalAsk(ctx context.Context, machineID string, ask *agentv1.Ask) (*agentv1.Answer, error) {
	return h.Ask(ctx, machineID, ask)
}
