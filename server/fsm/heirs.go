package fsm

import (
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// handOver gives a slot to its heir: from one version to the next the name and its pointers are the heir's, whose own they
// were not before, and the old holder is to be drained, unless it is on its way out already.
func (a *applier) handOver(c *raftlogv1.HandOver) *errs.Error {
	slot := a.Slot(c.GetSlot())
	if slot == nil {
		return notFound("slot", c.GetSlot())
	}
	name := slot.GetMetadata().GetName()
	if c.GetHolder() == "" || c.GetHeir() == "" || slot.GetHolder() != c.GetHolder() || slot.GetHeir() != c.GetHeir() {
		return errs.New(errs.Conflict, "slot %s is not held by machine %s with machine %s as its heir",
			name, clip(c.GetHolder(), maxName), clip(c.GetHeir(), maxName))
	}
	holder, err := a.machine(c.GetHolder())
	if err != nil {
		return err
	}
	heir, err := a.machine(c.GetHeir())
	if err != nil {
		return err
	}
	phase := heir.GetStatus().GetPhase()
	switch {
	case rank(phase) > rank(provisionrv1.Phase_PHASE_UNREACHABLE):
		return errs.New(errs.Conflict, "machine %s is %s: it cannot take over %s", c.GetHeir(), state.PhaseName(phase), name)
	case heir.GetMetadata().GetDeleted() != nil:
		return errs.New(errs.Conflict, "machine %s is being deleted: it cannot take over %s", c.GetHeir(), name)
	case heir.GetStatus().GetQuarantined() != "":
		return errs.New(errs.Conflict, "machine %s is quarantined: it cannot take over %s", c.GetHeir(), name)
	}
	a.succeed(slot, heir, clip(c.GetReason(), maxMessage))
	if draining := provisionrv1.Phase_PHASE_DRAINING; rank(holder.GetStatus().GetPhase()) < rank(draining) {
		s := holder.Status
		s.Phase, s.Reason, s.Since, s.Deadline = draining, clip(c.GetReason(), maxMessage), a.now, nil
		a.Put(holder)
		a.phaseEvent(holder)
	}
	return nil
}

// succeed makes the heir of a slot its holder.
func (a *applier) succeed(slot *provisionrv1.Slot, heir *provisionrv1.Machine, why string) {
	name, id := slot.GetMetadata().GetName(), heir.GetMetadata().GetName()
	a.hold(slot, id, "")
	if heir.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_CONVERGING {
		// What it has left to prove is the name; the clock for that begins with the next plan.
		heir.Status.Reason, heir.Status.Deadline = "has taken over "+name, nil
	}
	a.Put(heir)
	a.event("SlotHandedOver", fmt.Sprintf("%s is machine %s now, no more %s: %s", name, id, slot.GetHolder(), why), false, "", heir)
}

// recordNotice records or withdraws what a provider has announced.
func (a *applier) recordNotice(c *raftlogv1.RecordNotice) *errs.Error {
	m, err := a.machine(c.GetId())
	if err != nil {
		return err
	}
	if m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_GONE {
		return errs.New(errs.Conflict, "machine %s is gone", c.GetId())
	}
	var notice *provisionrv1.Notice
	if n := c.GetNotice(); n != nil {
		notice = &provisionrv1.Notice{Kind: clip(n.GetKind(), maxName), At: n.GetAt(), Message: clip(n.GetMessage(), maxDetail)}
		if !notice.GetAt().IsValid() {
			notice.At = nil
		}
	}
	if proto.Equal(m.GetStatus().GetNotice(), notice) {
		return nil
	}
	m.Status.Notice = notice
	a.Put(m)
	slot := m.GetSpec().GetSlot()
	if notice == nil {
		a.event("NoticeWithdrawn", fmt.Sprintf("the provider will not take %s away after all", slot), false, "", m)
		return nil
	}
	message := fmt.Sprintf("the provider announces %s for %s", notice.GetKind(), slot)
	if notice.GetAt() != nil {
		message += " at " + notice.GetAt().AsTime().Format("2006-01-02 15:04:05Z")
	}
	if notice.GetMessage() != "" {
		message += ": " + notice.GetMessage()
	}
	a.event("MachineNotice", message, true, "", m)
	return nil
}

// adoptMachine gives an address to a machine that exists already and has not joined yet. Another address may follow until it
// has.
func (a *applier) adoptMachine(c *raftlogv1.AdoptMachine) *errs.Error {
	m, err := a.machine(c.GetId())
	if err != nil {
		return err
	}
	slot, phase := m.GetSpec().GetSlot(), m.GetStatus().GetPhase()
	if phase != provisionrv1.Phase_PHASE_LAUNCHING && phase != provisionrv1.Phase_PHASE_BOOTING || m.GetStatus().GetKeyFingerprint() != "" {
		return errs.New(errs.Conflict, "%s (%s) is %s: only a machine that has not joined yet can be adopted", slot, c.GetId(), state.PhaseName(phase)).
			WithHint("to exchange the machine, delete it first: its slot then waits for another")
	}
	addr, parseErr := netip.ParseAddr(c.GetAddress())
	network := a.Network(m.GetSpec().GetNetwork())
	if parsed, err := parseNetwork(network); parseErr == nil && network != nil && err == nil && !parsed.usable(addr.Unmap()) {
		return errs.New(errs.Invalid, "no machine of network %s (%s) can have the address %s", network.GetMetadata().GetName(), parsed.prefix, addr).
			WithHint("give the machine's own address within its network")
	}
	before := m.GetStatus().GetAddress()
	if err := a.setAddress(m, c.GetAddress()); err != nil {
		return err
	}
	if m.GetStatus().GetAddress() == before {
		return nil
	}
	a.Put(m)
	a.event("MachineAdopted", fmt.Sprintf("%s is to be the machine at %s", slot, m.GetStatus().GetAddress()), false, "", m)
	return nil
}
