package fsm

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// MaxMachines bounds the machine records, gone ones included until they are forgotten.
const MaxMachines = 100000

// createMachine records a machine for a free slot, or as the heir of one that is held, and claims slot and address with it.
func (a *applier) createMachine(c *raftlogv1.CreateMachine) *errs.Error {
	if err := checkName("machine", c.GetId()); err != nil {
		return err
	}
	if a.Machine(c.GetId()) != nil {
		return errs.New(errs.Exists, "machine %s exists already", c.GetId())
	}
	pool := a.Pool(c.GetPool())
	switch {
	case pool == nil:
		return notFound("pool", c.GetPool())
	case pool.GetMetadata().GetDeleted() != nil:
		return errs.New(errs.Conflict, "pool %s is being deleted", c.GetPool())
	case pool.GetMetadata().GetGeneration() != c.GetPoolGeneration():
		return errs.New(errs.Conflict, "pool %s is at generation %d, the machine was planned for %d",
			c.GetPool(), pool.GetMetadata().GetGeneration(), c.GetPoolGeneration())
	case c.GetIndex() < 1 || c.GetIndex() > pool.GetSpec().GetSize():
		return errs.New(errs.Conflict, "pool %s has %d slots, not a slot %d", c.GetPool(), pool.GetSpec().GetSize(), c.GetIndex())
	case a.MachineCount() >= MaxMachines:
		return errs.New(errs.Exhausted, "there are %d machine records: no more are kept", MaxMachines)
	}
	slot := a.Slot(slotName(c.GetPool(), c.GetIndex()))
	if slot == nil {
		return errs.New(errs.Internal, "pool %s has no slot %d", c.GetPool(), c.GetIndex())
	}
	switch name := slot.GetMetadata().GetName(); {
	case !c.GetHeir() && slot.GetHolder() != "":
		return errs.New(errs.Conflict, "slot %s is held by machine %s", name, slot.GetHolder())
	case c.GetHeir() && slot.GetHolder() == "":
		return errs.New(errs.Conflict, "slot %s is free: it needs no heir", name)
	case slot.GetHeir() != "":
		return errs.New(errs.Conflict, "slot %s has an heir already, machine %s", name, slot.GetHeir())
	}
	network := a.NetworkOf(pool)
	m := &provisionrv1.Machine{
		Metadata: &provisionrv1.Metadata{
			Name: c.GetId(), Uid: c.GetId(), Generation: 1, Version: a.version, Created: a.now, Labels: pool.GetMetadata().GetLabels(),
		},
		Spec: &provisionrv1.MachineSpec{
			Pool: c.GetPool(), Slot: slot.GetMetadata().GetName(), Index: c.GetIndex(), Provider: state.ProviderName(pool),
			Network: network.GetMetadata().GetName(), Zone: a.ZoneName(pool), Fqdn: slot.GetFqdn(),
			PoolGeneration: c.GetPoolGeneration(), Os: pool.GetSpec().GetOs(), Hardware: pool.GetSpec().GetHardware(),
			Image: pool.GetSpec().GetImage(), Placement: pool.GetSpec().GetPlacement(), Spot: pool.GetSpec().GetSpot(),
		},
		Status: &provisionrv1.MachineStatus{Phase: provisionrv1.Phase_PHASE_PENDING, Reason: "recorded", Since: a.now},
	}
	if network.GetSpec().GetManaged() {
		address, err := a.assignAddress(network, c.GetId())
		if err != nil {
			return err
		}
		m.Status.Address = address
	}
	message := fmt.Sprintf("%s is machine %s", m.GetSpec().GetSlot(), c.GetId())
	if c.GetHeir() {
		a.hold(slot, slot.GetHolder(), c.GetId())
		message = fmt.Sprintf("machine %s is to take over %s from %s", c.GetId(), m.GetSpec().GetSlot(), slot.GetHolder())
	} else {
		a.hold(slot, c.GetId(), "")
	}
	a.Put(m)
	a.event("MachineCreated", message, false, "", m)
	return nil
}

func (a *applier) hold(slot *provisionrv1.Slot, holder, heir string) {
	s := proto.CloneOf(slot)
	s.Holder, s.Heir, s.Metadata.Version = holder, heir, a.version
	a.Put(s)
	a.names = true
}

// machine returns a copy of the machine to change, or why there is none.
func (a *applier) machine(id string) (*provisionrv1.Machine, *errs.Error) {
	m := a.Machine(id)
	if m == nil {
		return nil, notFound("machine", id)
	}
	m = proto.CloneOf(m)
	m.Metadata.Version = a.version
	if m.Status == nil {
		m.Status = &provisionrv1.MachineStatus{}
	}
	return m, nil
}

// beginLaunch commits the launch request before the provider is called. The same request again changes nothing.
func (a *applier) beginLaunch(c *raftlogv1.BeginLaunch) *errs.Error {
	launch := c.GetLaunch()
	m, err := a.machine(launch.GetMachineId())
	if err != nil {
		return err
	}
	phase := m.GetStatus().GetPhase()
	if proto.Equal(m.GetStatus().GetLaunch(), launch) && phase == provisionrv1.Phase_PHASE_LAUNCHING {
		return nil
	}
	switch {
	case m.GetMetadata().GetDeleted() != nil:
		return errs.New(errs.Conflict, "machine %s is being deleted", launch.GetMachineId())
	case phase != provisionrv1.Phase_PHASE_PENDING && phase != provisionrv1.Phase_PHASE_LAUNCHING:
		return errs.New(errs.Conflict, "machine %s is %s: it cannot be launched", launch.GetMachineId(), state.PhaseName(phase))
	case launch.GetAttempt() != m.GetStatus().GetAttempt()+1:
		return errs.New(errs.Conflict, "machine %s had %d launch attempts, this is number %d",
			launch.GetMachineId(), m.GetStatus().GetAttempt(), launch.GetAttempt())
	}
	s := m.Status
	s.Phase, s.Reason, s.Since, s.Deadline = provisionrv1.Phase_PHASE_LAUNCHING, "asked of the provider", a.now, c.GetDeadline()
	s.Attempt, s.Launch, s.LaunchedAt = launch.GetAttempt(), launch, a.now
	// A key is bound to the token of one attempt.
	s.KeyFingerprint, s.CertificateSerial, s.SessionSeen, s.BootStage = "", "", false, ""
	a.Put(m)
	a.event("MachineLaunching", fmt.Sprintf("%s is being launched, attempt %d", m.GetSpec().GetSlot(), s.GetAttempt()), false, "", m)
	return nil
}

func (a *applier) deleteMachine(name string) *errs.Error {
	present := a.MachineNamed(name)
	if present == nil {
		return notFound("machine", name)
	}
	if present.GetMetadata().GetDeleted() != nil {
		return nil
	}
	m, err := a.machine(present.GetMetadata().GetName())
	if err != nil {
		return err
	}
	m.Metadata.Deleted = a.now
	a.Put(m)
	a.event("MachineDeleting", fmt.Sprintf("%s is being deleted", m.GetSpec().GetSlot()), false, "", m)
	return nil
}

// release gives back what a machine that is gone held. An heir takes over where the holder is gone; where the heir is, the
// holder stays.
func (a *applier) release(m *provisionrv1.Machine) {
	id := m.GetMetadata().GetName()
	a.releaseAddresses(id)
	pool := a.Pool(m.GetSpec().GetPool())
	if slot := a.Slot(m.GetSpec().GetSlot()); slot != nil {
		switch id {
		case slot.GetHolder():
			if heir, err := a.machine(slot.GetHeir()); err == nil {
				a.succeed(slot, heir, "it is gone")
			} else {
				a.hold(slot, "", "")
			}
		case slot.GetHeir():
			a.hold(slot, slot.GetHolder(), "")
		}
		slot = a.Slot(m.GetSpec().GetSlot())
		if pool != nil && slot.GetHolder() == "" && slot.GetIndex() > pool.GetSpec().GetSize() {
			a.dropSlot(pool, slot)
		}
	}
	for _, p := range slices.Collect(a.Proofs(id)) {
		a.Delete(p)
	}
	for _, p := range slices.Collect(a.ProofsBy(id)) {
		a.Delete(p)
	}
	if pool != nil {
		a.removeIfEmpty(pool)
	}
}

func (a *applier) forgetMachine(id string) *errs.Error {
	m := a.Machine(id)
	if m == nil {
		return nil
	}
	if phase := m.GetStatus().GetPhase(); phase != provisionrv1.Phase_PHASE_GONE {
		return errs.New(errs.Conflict, "machine %s is %s: only machines that are gone are forgotten", id, state.PhaseName(phase))
	}
	a.Delete(m)
	return nil
}

func (a *applier) bootStage(c *raftlogv1.BootStage) *errs.Error {
	m, err := a.machine(c.GetId())
	if err != nil {
		return err
	}
	stage := clip(c.GetStage(), 64)
	if m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_GONE || m.GetStatus().GetBootStage() == stage {
		return nil
	}
	m.Status.BootStage = stage
	a.Put(m)
	return nil
}
