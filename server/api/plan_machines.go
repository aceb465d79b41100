package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/auth"
	"github.com/provisionr/provisionr/server/state"
)

const (
	defaultPreviewTimeout = 30 * time.Second
	maxPreviewTimeout     = 10 * time.Minute
	// maxResources bounds the resources named of one machine, maxDiff the octets of one of their texts.
	maxResources = 1000
	maxDiff      = 4 << 10
	// maxPreviews bounds the texts of one answer, in octets; beyond them resources are counted.
	maxPreviews = 16 << 20
)

// PlanMachines has the machines compare themselves with the state as it is, or as it would be after Apply.
func (s *manifestService) PlanMachines(ctx context.Context, req *provisionrv1.PlanMachinesRequest) (*provisionrv1.PlanMachinesResponse, error) {
	timeout, err := bounded("timeout", req.Timeout, defaultPreviewTimeout, maxPreviewTimeout)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.read(ctx, provisionrv1.Consistency_CONSISTENCY_LEADER)
	if err != nil {
		return nil, err
	}
	after := snapshot
	if len(req.Objects) > 0 {
		if after, err = s.future(ctx, snapshot, req.Objects); err != nil {
			return nil, err
		}
	}
	pools, err := previewed(after, req)
	if err != nil {
		return nil, err
	}
	resp := &provisionrv1.PlanMachinesResponse{Version: snapshot.Version()}
	plans := map[string]*provisionrv1.MachinePlan{}
	var asked []*provisionrv1.Machine
	var room atomic.Int64
	room.Store(maxPreviews)
	for _, pool := range pools {
		for _, t := range targets(after, pool) {
			resp.Machines = append(resp.Machines, t.plan)
			if t.plan.Error == "" {
				plans[t.plan.Id] = t.plan
				asked = append(asked, t.machine)
			}
		}
	}
	fanOut(asked, func(m *provisionrv1.Machine) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		s.preview(ctx, after, plans[m.GetMetadata().GetName()], &room)
	})
	return resp, ctx.Err()
}

// future is the state after the objects were applied. What a machine has where an object could name it is shown as a
// difference, so only who may read all that a machine has may ask.
func (s *manifestService) future(ctx context.Context, snapshot *state.Snapshot, objects []*provisionrv1.Object) (*state.Snapshot, error) {
	caller := auth.CallerOf(ctx)
	if caller.GetRole() < provisionrv1.Role_ROLE_OPERATOR {
		return nil, errs.New(errs.Denied, "cannot compare machines with a manifest: it needs the role operator").
			WithHint("without a manifest, viewers see how machines differ from what they should be now")
	}
	if _, err := plan(snapshot, objects); err != nil {
		return nil, err
	}
	return s.Future(caller, applyObjects(objects))
}

// previewed are the pools that an answer is about, by name.
func previewed(after *state.Snapshot, req *provisionrv1.PlanMachinesRequest) ([]*provisionrv1.Pool, error) {
	if req.Pool != "" {
		pool := after.Pool(req.Pool)
		if pool == nil {
			return nil, notFound("pool", req.Pool)
		}
		return []*provisionrv1.Pool{pool}, nil
	}
	var pools []*provisionrv1.Pool
	for _, o := range req.Objects {
		if p := o.GetPool(); p != nil {
			pools = append(pools, after.Pool(p.GetMetadata().GetName()))
		}
	}
	if len(pools) == 0 {
		return slices.Collect(after.Pools()), nil
	}
	return pools, nil
}

// target is a machine of a plan; one with an error is not asked.
type target struct {
	plan    *provisionrv1.MachinePlan
	machine *provisionrv1.Machine
}

// targets are the machines that a pool has or would have, by index.
func targets(after *state.Snapshot, pool *provisionrv1.Pool) []target {
	name, size := pool.GetMetadata().GetName(), pool.GetSpec().GetSize()
	var out []target
	have := map[uint32]bool{}
	machines := slices.Collect(after.MachinesOf(name))
	slices.SortStableFunc(machines, func(a, b *provisionrv1.Machine) int {
		return cmp.Compare(a.GetSpec().GetIndex(), b.GetSpec().GetIndex())
	})
	for _, m := range machines {
		p := &provisionrv1.MachinePlan{Machine: m.GetSpec().GetSlot(), Id: m.GetMetadata().GetName()}
		switch m.GetStatus().GetPhase() {
		case provisionrv1.Phase_PHASE_GONE:
			continue
		case provisionrv1.Phase_PHASE_TERMINATING, provisionrv1.Phase_PHASE_DRAINING:
			p.Error = "it is being deleted"
		}
		have[m.GetSpec().GetIndex()] = true
		switch why := state.Outdated(pool, m); {
		case p.Error != "":
		case m.GetSpec().GetIndex() > size || pool.GetMetadata().GetDeleted() != nil:
			p.Error = "it would be deleted"
		case why != "":
			p.Error = "it would be replaced: " + why
		case !living(m):
			p.Error = "it has not been launched yet"
		}
		out = append(out, target{p, m})
	}
	missing := 0
	for index := range size {
		switch {
		case have[index+1]:
		case missing < maxLines:
			missing++
			out = append(out, target{plan: &provisionrv1.MachinePlan{
				Machine: fmt.Sprintf("%s-%d", name, index+1), Error: "it does not exist yet: it would be created",
			}})
		default:
			missing++
		}
	}
	if missing > maxLines {
		out[len(out)-1].plan.Error += fmt.Sprintf(", as %d more of the pool", missing-maxLines)
	}
	return out
}

// preview asks one machine and completes its plan. The room is what the answer may still hold, in octets.
func (s *manifestService) preview(ctx context.Context, after *state.Snapshot, p *provisionrv1.MachinePlan, room *atomic.Int64) {
	wanted, err := s.Preview(after, p.Id)
	var answer *agentv1.Answer
	if err == nil {
		answer, err = s.Agents.Ask(ctx, p.Id, &agentv1.Ask{Kind: &agentv1.Ask_Preview{Preview: wanted}})
	}
	if err != nil {
		p.Error = explained(err)
		return
	}
	p.Checked = answer.GetPreview().GetChecked()
	p.Resources = bring(answer.GetPreview().GetDifferences(), room)
}

// bring copies what a machine said, as far as there is room. That is looked at while machines answer: thousands could say more
// than there is memory for.
func bring(said []*agentv1.ResourceChange, room *atomic.Int64) (out []*provisionrv1.ResourcePlan) {
	for i, d := range said {
		r := &provisionrv1.ResourcePlan{
			Resource: validTail(d.GetResource(), maxDiff), Diff: validHead(d.GetDiff(), maxDiff), Error: validHead(d.GetError(), maxDiff),
		}
		if i == maxResources || room.Add(-int64(len(r.Resource)+len(r.Diff)+len(r.Error))) < 0 {
			return append(out, &provisionrv1.ResourcePlan{Resource: fmt.Sprintf("and %d more: ask about one pool", len(said)-i)})
		}
		out = append(out, r)
	}
	return out
}

// explained is an error as one text, with its hint.
func explained(err error) string {
	if hint := errs.HintOf(err); hint != "" {
		return err.Error() + " (" + hint + ")"
	}
	return err.Error()
}
