package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/state"
)

// resolveTimeout bounds the wait for an offer.
const resolveTimeout = time.Minute

// begin asks the provider what the pool's wishes come to now, and commits the complete request for the machine's next
// attempt with the first choice that is not known to be out of capacity. It changes nothing at the provider.
func (c caller) begin(ctx context.Context, a Action) result {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	p, err := c.Providers.Provider(a.Provider)
	if err != nil {
		return result{err: err}
	}
	s := c.Store.Read()
	m := s.Machine(a.Machine)
	pool := s.Pool(m.GetSpec().GetPool())
	if pool == nil || m.GetStatus().GetAttempt()+1 != a.Attempt || called(m) {
		return result{err: errs.New(errs.Canceled, "the machine's record has changed: %w", context.Canceled)}
	}
	c.Hook("begin.before")
	offer, err := c.market.offer(ctx, p, s.Provider(a.Provider), wishOf(s, pool, m))
	var choice *provisionrv1.Choice
	if err == nil {
		choice, err = c.market.choose(a.Provider, offer)
	}
	if err != nil {
		return c.beginFailed(ctx, m, err)
	}
	seed, err := c.Seed(s, s.Network(m.GetSpec().GetNetwork()))
	if err != nil {
		return result{err: err}
	}
	request, err := launchRequest(s, m, seed, choice)
	if err != nil {
		return result{err: err}
	}
	c.Hook("begin.resolved")
	err = c.propose(ctx, &raftlogv1.Command{Kind: &raftlogv1.Command_BeginLaunch{BeginLaunch: &raftlogv1.BeginLaunch{
		Launch: request, Deadline: timestamppb.New(a.Deadline),
	}}})
	if err == nil {
		c.Hook("begin.committed")
	}
	return result{err: err}
}

// wishOf is what a machine is to be, for a provider. It counts the machines of the pool that are yet to be launched.
func wishOf(s *state.Snapshot, pool *provisionrv1.Pool, m *provisionrv1.Machine) *provisionrv1.Wish {
	spec := m.GetSpec()
	wish := &provisionrv1.Wish{
		ClusterId: s.Cluster().GetId(), Pool: spec.GetPool(), Os: spec.GetOs(), Hardware: spec.GetHardware(), Image: spec.GetImage(),
		Placement: spec.GetPlacement(), Spot: spec.GetSpot(), Network: s.Network(spec.GetNetwork()),
	}
	for other := range s.MachinesOf(pool.GetMetadata().GetName()) {
		if phase := other.GetStatus().GetPhase(); phase == pending || phase == launching {
			wish.Count++
		}
	}
	return wish
}

// beginFailed decides by the error's kind: what can never be had fails the machine, for all else it waits and says why.
func (c caller) beginFailed(ctx context.Context, m *provisionrv1.Machine, err error) result {
	ctx = context.WithoutCancel(ctx)
	switch provider.KindOf(err) {
	case provider.Invalid:
		set := setPhase(m, failed, "the provider cannot have it: "+err.Error(), time.Time{})
		set.Evidence = &provisionrv1.BootEvidence{Taken: timestamppb.New(time.Now())}
		return result{err: c.propose(ctx, phaseCommand(set))}
	case provider.NoCapacity, provider.QuotaExceeded, provider.Unauthorized:
		c.wait(ctx, m, err)
		return result{err: err, event: c.delayed(m, err)}
	}
	return result{err: err}
}

// delayed is the event of a launch that has to wait.
func (c caller) delayed(m *provisionrv1.Machine, err error) *provisionrv1.Event {
	return &provisionrv1.Event{
		Reason: "LaunchDelayed", Warning: true, Pool: m.GetSpec().GetPool(), Machine: m.GetMetadata().GetName(),
		Slot: m.GetSpec().GetSlot(), Message: kindName(err) + ": " + err.Error(),
	}
}

func kindName(err error) string { return strings.ReplaceAll(string(provider.KindOf(err)), "_", " ") }

// wait says on the record why a machine does not go on, where it does not say so already. Nothing depends on it.
func (c caller) wait(ctx context.Context, m *provisionrv1.Machine, err error) {
	why := fmt.Sprintf("%s%s: %s", state.Waiting, kindName(err), err)
	now := c.Store.Read().Machine(m.GetMetadata().GetName()).GetStatus()
	if now.GetReason() == why || now.GetPhase() != m.GetStatus().GetPhase() || now.GetAttempt() != m.GetStatus().GetAttempt() {
		return
	}
	set := setPhase(m, now.GetPhase(), why, time.Time{})
	set.Deadline = now.GetDeadline()
	if err := c.propose(ctx, phaseCommand(set)); err != nil {
		c.Logger.Debug("cannot record why a machine waits", "machine", m.GetMetadata().GetName(), "error", err)
	}
}
