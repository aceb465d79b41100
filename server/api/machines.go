package api

import (
	"context"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

type machineService struct {
	provisionrv1.UnimplementedMachineServiceServer
	*base
}

func (s *machineService) ListMachines(ctx context.Context, req *provisionrv1.ListMachinesRequest) (*provisionrv1.ListMachinesResponse, error) {
	snapshot, err := s.poll(ctx, req.Consistency, s.machines, req.Index, req.Wait)
	if err != nil {
		return nil, err
	}
	machines := snapshot.Machines()
	if req.Pool != "" {
		machines = snapshot.MachinesOf(req.Pool)
	}
	resp := &provisionrv1.ListMachinesResponse{Version: snapshot.Version()}
	for m := range machines {
		if req.Gone || m.GetStatus().GetPhase() != provisionrv1.Phase_PHASE_GONE {
			resp.Machines = append(resp.Machines, m)
		}
	}
	return resp, nil
}

func (s *machineService) GetMachine(ctx context.Context, req *provisionrv1.GetMachineRequest) (*provisionrv1.Machine, error) {
	return s.find(ctx, req.Consistency, req.Name)
}

// find looks a machine up by its id, slot name or FQDN.
func (s *machineService) find(ctx context.Context, c provisionrv1.Consistency, name string) (*provisionrv1.Machine, error) {
	snapshot, err := s.read(ctx, c)
	if err != nil {
		return nil, err
	}
	if m := snapshot.MachineNamed(name); m != nil {
		return m, nil
	}
	return nil, notFound("machine", name)
}

func (s *machineService) DeleteMachine(ctx context.Context, req *provisionrv1.DeleteMachineRequest) (*provisionrv1.WriteResponse, error) {
	// A name is resolved once, here: by the time of the commit it might be its replacement's.
	m, err := s.find(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER, req.Name)
	if err != nil {
		return nil, err
	}
	return s.written(ctx, req.RequestId, deleteObject("machines", m.GetMetadata().GetName()))
}

// maxConsole bounds what GetConsole answers, in bytes.
const maxConsole = 64 << 10

func (s *machineService) GetConsole(ctx context.Context, req *provisionrv1.GetConsoleRequest) (*provisionrv1.GetConsoleResponse, error) {
	m, err := s.find(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER, req.Name)
	if err != nil {
		return nil, err
	}
	text, err := s.Consoles.Console(ctx, m)
	if err != nil {
		// A machine that could not boot is often gone from its provider, but its evidence was kept.
		kept := m.GetStatus().GetEvidence().GetConsole()
		if kept == "" {
			return nil, err
		}
		text = kept
	}
	return &provisionrv1.GetConsoleResponse{Console: validTail(text, maxConsole)}, nil
}

// selectMachines returns the machines that a selector names: a machine, pool/NAME or all.
func selectMachines(snapshot *state.Snapshot, selector string) ([]*provisionrv1.Machine, error) {
	pool, isPool := cutPool(selector)
	switch {
	case selector == "all":
		var machines []*provisionrv1.Machine
		for m := range snapshot.Machines() {
			if living(m) {
				machines = append(machines, m)
			}
		}
		return machines, nil
	case isPool:
		if snapshot.Pool(pool) == nil {
			return nil, notFound("pool", pool)
		}
		return livingOf(snapshot, pool), nil
	}
	m := snapshot.MachineNamed(selector)
	if m == nil {
		return nil, errs.New(errs.NotFound, "cannot find machine %q", selector).
			WithHint("a selector is a machine's name or id, pool/NAME, or all")
	}
	return []*provisionrv1.Machine{m}, nil
}
