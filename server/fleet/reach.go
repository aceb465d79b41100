package fleet

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	memberv1 "github.com/provisionr/provisionr/proto/member/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Exec runs a command on a machine through whichever member has its session.
func (f *Fleet) Exec(ctx context.Context, machineID, slot string, req *provisionrv1.ExecRequest, send func(*provisionrv1.ExecResponse) error) error {
	holder, err := f.holder(machineID)
	if err != nil {
		return err
	}
	if holder == f.config.Self {
		return f.config.Local.Exec(ctx, machineID, slot, req, send)
	}
	conn, err := f.config.Conns.Conn(ctx, holder)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := memberv1.NewMemberServiceClient(conn).Exec(ctx, &memberv1.ExecRequest{MachineId: machineID, Slot: slot, Exec: req})
	if err != nil {
		return errs.FromRPC(err)
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errs.FromRPC(err)
		}
		if err := send(event); err != nil {
			return err
		}
	}
}

// Verify returns when the machine has proven its assumptions anew and the proofs are committed.
func (f *Fleet) Verify(ctx context.Context, machineID string) error {
	holder, err := f.holder(machineID)
	if err != nil {
		return err
	}
	if holder == f.config.Self {
		return f.config.Local.Verify(ctx, machineID)
	}
	conn, err := f.config.Conns.Conn(ctx, holder)
	if err != nil {
		return err
	}
	req := &memberv1.VerifyRequest{MachineId: machineID}
	if deadline, ok := ctx.Deadline(); ok {
		req.Timeout = durationpb.New(time.Until(deadline))
	}
	_, err = memberv1.NewMemberServiceClient(conn).Verify(ctx, req)
	return errs.FromRPC(err)
}

// Ask asks the agent of a machine through whichever member has its session. What the agent says that it cannot do has kind
// Conflict, an agent without a session Unavailable, and one whose session ends before the answer Canceled.
func (f *Fleet) Ask(ctx context.Context, machineID string, ask *agentv1.Ask) (*agentv1.Answer, error) {
	holder, err := f.holder(machineID)
	if err != nil {
		return nil, err
	}
	if holder == f.config.Self {
		return f.config.Local.Ask(ctx, machineID, ask)
	}
	conn, err := f.config.Conns.Conn(ctx, holder)
	if err != nil {
		return nil, err
	}
	req := &memberv1.AskRequest{MachineId: machineID, Ask: ask}
	if deadline, ok := ctx.Deadline(); ok {
		req.Timeout = durationpb.New(time.Until(deadline))
	}
	answer, err := memberv1.NewMemberServiceClient(conn).Ask(ctx, req)
	if err != nil {
		return nil, errs.FromRPC(err)
	}
	return answer, nil
}
