package fsm

import (
	"fmt"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
	"github.com/provisionr/provisionr/server/state"
)

// bindKey binds a machine to the key that first used its token, and records each certificate of that key. Another key
// quarantines the machine: this refusal, alone of all, changes the state.
func (a *applier) bindKey(c *raftlogv1.BindKey) *errs.Error {
	m, err := a.machine(c.GetId())
	if err != nil {
		return errs.New(errs.Denied, "machine %s is not known", clip(c.GetId(), maxName))
	}
	s := m.Status
	slot := m.GetSpec().GetSlot()
	switch phase := s.GetPhase(); {
	case c.GetKeyFingerprint() == "":
		return errs.New(errs.Invalid, "no key to bind %s to", slot)
	case s.GetQuarantined() != "":
		return errs.New(errs.Denied, "%s (%s) is quarantined: %s", slot, c.GetId(), s.GetQuarantined()).WithHint("delete the machine; its pool replaces it")
	case phase == provisionrv1.Phase_PHASE_PENDING || phase == provisionrv1.Phase_PHASE_TERMINATING || phase == provisionrv1.Phase_PHASE_GONE:
		return errs.New(errs.Denied, "%s (%s) is %s: it may not join", slot, c.GetId(), state.PhaseName(phase))
	case c.GetAttempt() != s.GetAttempt():
		return errs.New(errs.Denied, "the token of %s (%s) is of launch attempt %d, the present one is %d", slot, c.GetId(), c.GetAttempt(), s.GetAttempt())
	}
	key := clip(c.GetKeyFingerprint(), 128)
	serial := clip(c.GetCertificateSerial(), 128)
	switch s.GetKeyFingerprint() {
	case key:
		if serial == "" || serial == s.GetCertificateSerial() {
			return nil
		}
		s.CertificateSerial = serial
		a.Put(m)
		return nil
	case "":
		s.KeyFingerprint, s.CertificateSerial = key, serial
		a.Put(m)
		a.event("MachineJoined", fmt.Sprintf("the agent of %s joined", slot), false, "", m)
		return nil
	}
	s.Quarantined = "a second key used its join token"
	a.Put(m)
	a.leaves(m)
	a.event("MachineQuarantined", fmt.Sprintf("%s is quarantined: %s", slot, s.GetQuarantined()), true, "", m)
	a.keep = true
	return errs.New(errs.Denied, "%s (%s) is bound to another key and is quarantined now", slot, c.GetId()).
		WithHint("a machine was cloned, or its user-data leaked: delete the machine; its pool replaces it")
}

func (a *applier) quarantine(id, reason string) *errs.Error {
	m, err := a.machine(id)
	if err != nil {
		return err
	}
	if m.GetStatus().GetQuarantined() != "" {
		return nil
	}
	if m.Status.Quarantined = clip(reason, maxDetail); m.Status.Quarantined == "" {
		m.Status.Quarantined = "no reason was given"
	}
	a.Put(m)
	a.leaves(m)
	a.event("MachineQuarantined", fmt.Sprintf("%s is quarantined: %s", m.GetSpec().GetSlot(), m.GetStatus().GetQuarantined()), true, "", m)
	return nil
}

// leaves notes that a quarantined machine does not share its pool's names any more. Below that level it kept them until the
// next change of names.
func (a *applier) leaves(m *provisionrv1.Machine) {
	a.names = a.names || a.NamesLevel() && m.GetStatus().GetPhase() == provisionrv1.Phase_PHASE_READY
}

// sessionSeen uses the join token up: the agent has shown that it holds the key.
func (a *applier) sessionSeen(c *raftlogv1.SessionSeen) *errs.Error {
	m, err := a.machine(c.GetId())
	if err != nil {
		return err
	}
	if key := m.GetStatus().GetKeyFingerprint(); key == "" || key != c.GetKeyFingerprint() {
		return errs.New(errs.Denied, "machine %s is bound to another key", c.GetId())
	}
	if m.GetStatus().GetSessionSeen() {
		return nil
	}
	m.Status.SessionSeen = true
	a.Put(m)
	a.event("MachineConnected", fmt.Sprintf("the agent of %s is connected", m.GetSpec().GetSlot()), false, "", m)
	return nil
}
