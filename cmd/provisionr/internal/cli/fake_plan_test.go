package cli_test

import (
	"context"

	"google.golang.org/grpc"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

// PlanMachines answers for three machines: one that would change, one as it is and one that is away.
func (f *fake) PlanMachines(_ context.Context, r *provisionrv1.PlanMachinesRequest) (*provisionrv1.PlanMachinesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &provisionrv1.PlanMachinesResponse{Version: f.version()}
	same := &provisionrv1.MachinePlan{Machine: "zk-2", Id: "m-zk-2", Checked: 40}
	switch {
	case r.Pool == "same":
		out.Machines = append(out.Machines, same)
	case r.Pool == "broken":
		out.Machines = append(out.Machines, &provisionrv1.MachinePlan{Machine: "zk-1", Checked: 1, Resources: []*provisionrv1.ResourcePlan{
			{Resource: "package", Error: "the database is locked"},
		}})
	case r.Pool != "" && f.pools[r.Pool] == nil:
		return nil, errs.New(errs.NotFound, "cannot find pool %q", r.Pool)
	default:
		diff := "-old\x1b[31m line\n+new line"
		if len(r.Objects) > 0 {
			diff = "+of the manifest"
		}
		out.Machines = append(out.Machines,
			&provisionrv1.MachinePlan{Machine: "zk-1", Id: "m-zk-1", Checked: 41, Resources: []*provisionrv1.ResourcePlan{{Resource: "file//etc/motd", Diff: diff}}},
			same,
			&provisionrv1.MachinePlan{Machine: "zk-3", Error: "the agent is not connected"})
	}
	return out, nil
}

func (f *fake) UpgradeAgents(r *provisionrv1.UpgradeAgentsRequest, stream grpc.ServerStreamingServer[provisionrv1.UpgradeAgentsResponse]) error {
	answers := []*provisionrv1.UpgradeAgentsResponse{
		{Machine: "zk-1", State: "current", Version: "v2"}, {Machine: "zk-2", State: "upgraded", Version: "v2"},
	}
	if r.Selector == "all" {
		answers = append(answers, &provisionrv1.UpgradeAgentsResponse{Machine: "zk-3", State: "failed", Error: "not connected within " + r.Timeout.AsDuration().String()})
	}
	for _, a := range answers {
		if err := stream.Send(a); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) RebootMachine(_ context.Context, r *provisionrv1.RebootMachineRequest) (*provisionrv1.WriteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Reason != "a new kernel" || r.RequestId == "" {
		return nil, errs.New(errs.Conflict, "cannot reboot %s now: 1 other machines of pool zk do not serve", r.Name).WithHint("wait until they are ready")
	}
	return &provisionrv1.WriteResponse{Version: f.version()}, nil
}
