package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/dnszone"
)

// Bounds of one report and of what is kept of reports; what is above them is dropped.
const (
	maxReportProofs  = 4096
	maxReportEvents  = 64
	maxMachineProofs = 1024
	// maxOwnProofs and maxPeerProofs are of one observer, about itself and about each other machine: no machine can fill
	// another's table.
	maxOwnProofs  = 256
	maxPeerProofs = 16
)

// reportMachine records what an agent reported about itself and observed of its peers.
func (a *applier) reportMachine(c *raftlogv1.ReportMachine) *errs.Error {
	m, err := a.machine(c.GetId())
	if err != nil {
		return err
	}
	if m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_GONE {
		return errs.New(errs.Conflict, "machine %s is gone", c.GetId())
	}
	if agent := c.GetAgent(); agent != nil {
		agent = proto.CloneOf(agent)
		agent.Message = clip(agent.GetMessage(), maxMessage)
		agent.Version, agent.BootId = clip(agent.GetVersion(), 128), clip(agent.GetBootId(), 128)
		agent.DesiredHash = clip(agent.GetDesiredHash(), 128)
		if agent.Reported == nil {
			agent.Reported = a.now
		}
		m.Status.Agent = agent
		a.endReboot(m)
	}
	switch {
	case c.GetFacts() != nil:
		a.setFacts(m, c.GetFacts())
	case waitsForVpn(m):
		if pool := a.Pool(m.GetSpec().GetPool()); pool.GetSpec().GetVpn() != nil {
			// That there still is no address was said when it was not there first.
			_, _ = a.enterVpn(pool, m, nil)
		}
	}
	if c.GetAgent() != nil || c.GetFacts() != nil {
		a.telling(m)
		a.Put(m)
	}
	for _, p := range c.GetProofs()[:min(len(c.GetProofs()), maxReportProofs)] {
		a.prove(m, p)
	}
	for _, e := range c.GetEvents()[:min(len(c.GetEvents()), maxReportEvents)] {
		reported := cleanEvent(e)
		reported.Machine, reported.Slot, reported.Pool = c.GetId(), m.GetSpec().GetSlot(), m.GetSpec().GetPool()
		a.addEvent(reported)
	}
	return nil
}

// telling notes, before a machine is written, whether what its name says of it is about to change.
func (a *applier) telling(m *provisionrv1.Machine) {
	id := m.GetMetadata().GetName()
	if a.NamesLevel() && a.Slot(m.GetSpec().GetSlot()).GetHolder() == id && !dnszone.SameFacts(a.Machine(id), m) {
		a.names = true
	}
}

// prove keeps the newest outcome of one observer; a state of unspecified withdraws it. What a machine says of one that
// is gone, unknown or of another pool is dropped: only members of a pool look at each other.
func (a *applier) prove(by *provisionrv1.Machine, p *provisionrv1.Proof) {
	observer, id := by.GetMetadata().GetName(), p.GetMachine()
	if id == "" {
		id = observer
	}
	subject := a.Machine(id)
	assumption := safeKey(clip(p.GetAssumption(), 64))
	if subject == nil || subject.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_GONE || assumption == "" ||
		subject.GetSpec().GetPool() != by.GetSpec().GetPool() {
		return
	}
	present := a.Proof(id, assumption, observer)
	if p.GetState() == provisionrv1.ProofState_PROOF_STATE_UNSPECIFIED {
		if present != nil {
			a.Delete(present)
		}
		return
	}
	if present == nil && !a.hasRoom(id, observer) {
		return
	}
	proof := &provisionrv1.Proof{
		Machine: id, Assumption: assumption, Observer: observer, State: p.GetState(), Expected: clip(p.GetExpected(), maxDetail),
		Found: clip(p.GetFound(), maxDetail), Remedy: clip(p.GetRemedy(), maxDetail), At: a.now, DesiredHash: clip(p.GetDesiredHash(), 128),
	}
	if present != nil {
		same := proto.CloneOf(proof)
		same.At, same.DesiredHash = present.GetAt(), present.GetDesiredHash()
		if proto.Equal(same, present) {
			proof.At = present.GetAt()
		}
		if proto.Equal(proof, present) {
			return
		}
	}
	a.Put(proof)
	if phase := subject.GetStatus().GetPhase(); phase == provisionrv1.Phase_PHASE_READY || phase == provisionrv1.Phase_PHASE_DEGRADED {
		a.proofEvent(subject, present, proof)
	}
}

// hasRoom says whether one more proof of an observer about a machine is kept.
func (a *applier) hasRoom(id, observer string) bool {
	own, all := 0, 0
	for p := range a.Proofs(id) {
		if all++; p.GetObserver() == observer {
			own++
		}
	}
	if id == observer {
		return own < maxOwnProofs
	}
	return own < maxPeerProofs && all < maxMachineProofs
}

// proofEvent tells of an assumption that a machine in service lost or got back.
func (a *applier) proofEvent(m *provisionrv1.Machine, before, after *provisionrv1.Proof) {
	failed := provisionrv1.ProofState_PROOF_STATE_FAILED
	slot := m.GetSpec().GetSlot()
	switch {
	case after.GetState() == failed && before.GetState() != failed:
		a.event("ProofFailed", fmt.Sprintf("%s does not hold on %s: expected %s, found %s", after.GetAssumption(), slot, after.GetExpected(), after.GetFound()), true, "", m)
	case after.GetState() != failed && before.GetState() == failed:
		a.event("ProofRecovered", fmt.Sprintf("%s holds again on %s", after.GetAssumption(), slot), false, "", m)
	}
}

// cleanEvent copies an event from outside within bounds. Its version, and what is unset, is filled in by addEvent.
func cleanEvent(e *provisionrv1.Event) *provisionrv1.Event {
	c := &provisionrv1.Event{
		Time: e.GetTime(), Reason: clip(e.GetReason(), maxName), Message: clip(e.GetMessage(), maxMessage), Warning: e.GetWarning(),
		Pool: clip(e.GetPool(), maxName), Machine: clip(e.GetMachine(), maxName), Slot: clip(e.GetSlot(), maxName),
		Caller: e.GetCaller(), RequestId: clip(e.GetRequestId(), maxName),
	}
	if c.Time != nil && !c.Time.IsValid() {
		c.Time = nil
	}
	return c
}

func (a *applier) recordEvent(e *provisionrv1.Event) *errs.Error {
	if e.GetReason() == "" {
		return errs.New(errs.Invalid, "an event needs a reason")
	}
	a.addEvent(cleanEvent(e))
	return nil
}
