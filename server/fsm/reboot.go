package fsm

import (
	"fmt"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// beginReboot records that a machine is asked to boot again. The boot id keeps a request that comes late from rebooting the
// machine a second time.
func (a *applier) beginReboot(c *raftlogv1.BeginReboot) *errs.Error {
	m, err := a.machine(c.GetId())
	if err != nil {
		return err
	}
	a.endReboot(m)
	slot, s := m.GetSpec().GetSlot(), m.Status
	switch boot := s.GetAgent().GetBootId(); {
	case rank(s.GetPhase()) != rank(provisionrv1.Phase_PHASE_READY):
		return errs.New(errs.Conflict, "machine %s is %s: it is not rebooted", slot, state.PhaseName(s.GetPhase()))
	case m.GetMetadata().GetDeleted() != nil:
		return errs.New(errs.Conflict, "machine %s is being deleted", slot)
	case c.GetBootId() == "" || c.GetBootId() != boot:
		return errs.New(errs.Conflict, "machine %s has booted since the reboot was decided", slot).WithHint("look again whether it is still needed")
	case s.GetReboot() != nil:
		return errs.New(errs.Conflict, "machine %s is being rebooted already", slot).WithHint("wait until it is back")
	case !c.GetDeadline().IsValid() || !c.GetDeadline().AsTime().After(a.now.AsTime()):
		return errs.New(errs.Invalid, "the reboot of machine %s needs a deadline in the future", slot)
	}
	// Two that were decided at the same time each saw the other's machine serve.
	if pool := a.Pool(m.GetSpec().GetPool()); pool != nil && s.GetPhase() == provisionrv1.Phase_PHASE_READY {
		if away, most := a.Away(pool, c.GetId()), state.MaxUnavailable(pool); away >= most {
			return errs.New(errs.Conflict, "machine %s is not rebooted: %d others of its pool do not serve, and its safety.maxUnavailable is %d", slot, away, most).
				WithHint("wait until they are ready, or allow more in the pool")
		}
	}
	s.Reboot = &provisionrv1.Reboot{BootId: c.GetBootId(), Reason: clip(c.GetReason(), maxDetail), Since: a.now, Deadline: c.GetDeadline()}
	a.Put(m)
	message := slot + " is being rebooted"
	if s.GetReboot().GetReason() != "" {
		message += ": " + s.GetReboot().GetReason()
	}
	a.event("RebootBegun", message, false, "", m)
	return nil
}

// endReboot ends the reboot of a machine, which the caller writes, once the agent is there with another boot id, or its time
// is over.
func (a *applier) endReboot(m *provisionrv1.Machine) {
	r, slot := m.GetStatus().GetReboot(), m.GetSpec().GetSlot()
	if r == nil {
		return
	}
	boot := m.GetStatus().GetAgent().GetBootId()
	switch {
	case boot != "" && boot != r.GetBootId():
		m.Status.Reboot, m.Status.LastReboot = nil, r
		a.event("RebootDone", fmt.Sprintf("%s has booted again", slot), false, "", m)
	case !a.now.AsTime().Before(r.GetDeadline().AsTime()):
		m.Status.Reboot, m.Status.LastReboot = nil, r
		a.event("RebootOverdue", fmt.Sprintf("%s was to be rebooted and has not until %s", slot, r.GetDeadline().AsTime().Format("15:04:05Z")), true, "", m)
	}
}
