package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/auth"
)

// rebootAsk bounds the wait for the agent's yes.
const rebootAsk = 15 * time.Second

// RebootMachine records the reboot and asks the machine for it. Where the answer is lost, the leader asks again until the
// deadline: one boot is never asked for twice.
func (s *machineService) RebootMachine(ctx context.Context, req *provisionrv1.RebootMachineRequest) (*provisionrv1.WriteResponse, error) {
	m, err := s.find(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER, req.Name)
	if err != nil {
		return nil, err
	}
	slot, boot := m.GetSpec().GetSlot(), m.GetStatus().GetAgent().GetBootId()
	if boot == "" {
		return nil, errs.New(errs.Conflict, "cannot reboot %s: its agent has not reported yet", slot)
	}
	if err := s.MayReboot(s.State.Read(), m); err != nil {
		return nil, err
	}
	reason := req.Reason
	if reason == "" {
		reason = "asked for by " + auth.CallerOf(ctx).GetName()
	}
	resp, err := s.written(ctx, req.RequestId, &raftlogv1.Command{Kind: &raftlogv1.Command_BeginReboot{BeginReboot: &raftlogv1.BeginReboot{
		Id: m.GetMetadata().GetName(), BootId: boot, Reason: reason, Deadline: timestamppb.New(time.Now().Add(s.RebootTimeout)),
	}}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, rebootAsk)
	defer cancel()
	_, err = s.Agents.Ask(ctx, m.GetMetadata().GetName(), &agentv1.Ask{Kind: &agentv1.Ask_Reboot{Reboot: &agentv1.Reboot{Reason: reason, BootId: boot}}})
	if err != nil && !errs.Is(err, errs.Canceled) {
		return nil, errs.New(errs.KindOf(err), "cannot reboot %s yet: %w", slot, err).
			WithHint("it is asked again until %s have passed", s.RebootTimeout)
	}
	return resp, nil
}
