package fsm

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	raftlogv1 "github.com/provisionr/provisionr/proto/raftlog/v1"
)

func phaseName(p provisionrv1.Phase) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PHASE_"))
}

// rank orders phases: a machine never goes to a lower rank. Working machines move freely among the phases of one rank.
func rank(p provisionrv1.Phase) int {
	switch p {
	case provisionrv1.Phase_PHASE_PENDING:
		return 1
	case provisionrv1.Phase_PHASE_LAUNCHING:
		return 2
	case provisionrv1.Phase_PHASE_BOOTING:
		return 3
	case provisionrv1.Phase_PHASE_JOINING:
		return 4
	case provisionrv1.Phase_PHASE_CONVERGING, provisionrv1.Phase_PHASE_READY, provisionrv1.Phase_PHASE_DEGRADED,
		provisionrv1.Phase_PHASE_UNREACHABLE:
		return 5
	case provisionrv1.Phase_PHASE_FAILED:
		return 6
	case provisionrv1.Phase_PHASE_DRAINING:
		return 7
	case provisionrv1.Phase_PHASE_TERMINATING:
		return 8
	case provisionrv1.Phase_PHASE_GONE:
		return 9
	}
	return 0
}

// mayMove says whether a machine that had so many launch attempts may go from one phase to another.
func mayMove(from, to provisionrv1.Phase, attempts uint32) bool {
	switch {
	case rank(to) == 0 || rank(from) == 0 || from == provisionrv1.Phase_PHASE_GONE:
		return false
	case from == to:
		return true
	case to == provisionrv1.Phase_PHASE_LAUNCHING:
		// Only BeginLaunch may: the launch request must be committed with it.
		return false
	case to == provisionrv1.Phase_PHASE_GONE:
		return from == provisionrv1.Phase_PHASE_TERMINATING || attempts == 0
	case attempts == 0 && rank(to) <= rank(provisionrv1.Phase_PHASE_UNREACHABLE):
		return false
	}
	return rank(to) >= rank(from)
}

func (a *applier) setPhase(c *raftlogv1.SetPhase) *errs.Error {
	m, err := a.machine(c.GetId())
	if err != nil {
		return err
	}
	before := m.GetStatus().GetPhase()
	if !slices.Contains(c.GetFrom(), before) {
		return errs.New(errs.Conflict, "machine %s is %s: the change to %s was planned for another phase",
			c.GetId(), phaseName(before), phaseName(c.GetTo()))
	}
	if !mayMove(before, c.GetTo(), m.GetStatus().GetAttempt()) {
		return errs.New(errs.Conflict, "machine %s cannot go from %s to %s", c.GetId(), phaseName(before), phaseName(c.GetTo()))
	}
	s := m.Status
	if before != c.GetTo() {
		s.Since = a.now
	}
	s.Phase, s.Reason, s.Deadline = c.GetTo(), clip(c.GetReason(), maxMessage), c.GetDeadline()
	if id := c.GetProviderId(); id != "" {
		s.ProviderId = clip(id, maxDetail)
	}
	if e := c.GetEvidence(); e != nil {
		e = proto.CloneOf(e)
		if over := len(e.GetConsole()) - maxConsole; over > 0 {
			e.Console = valid(e.GetConsole()[over:])
		}
		s.Evidence = e
	}
	if c.GetAbsentSince() != nil {
		s.AbsentSince = c.GetAbsentSince()
	}
	if c.GetAddress() != "" && c.GetTo() != provisionrv1.Phase_PHASE_GONE {
		if err := a.setAddress(m, c.GetAddress()); err != nil {
			return err
		}
	}
	if gone := c.GetTo() == provisionrv1.Phase_PHASE_GONE; gone {
		s.Deadline = nil
		if m.GetMetadata().GetDeleted() == nil {
			m.Metadata.Deleted = a.now
		}
	}
	a.Put(m)
	if c.GetTo() == provisionrv1.Phase_PHASE_GONE {
		a.release(m)
	}
	if ready := provisionrv1.Phase_PHASE_READY; before != c.GetTo() {
		a.names = a.names || before == ready || c.GetTo() == ready
		a.phaseEvent(m)
	}
	return nil
}

func (a *applier) phaseEvent(m *provisionrv1.Machine) {
	phase := m.GetStatus().GetPhase()
	name := phaseName(phase)
	warning := phase == provisionrv1.Phase_PHASE_FAILED || phase == provisionrv1.Phase_PHASE_DEGRADED || phase == provisionrv1.Phase_PHASE_UNREACHABLE
	message := fmt.Sprintf("%s is %s", m.GetSpec().GetSlot(), name)
	if reason := m.GetStatus().GetReason(); reason != "" {
		message += ": " + reason
	}
	a.event("Machine"+strings.ToUpper(name[:1])+name[1:], message, warning, "", m)
}

// ownNetwork names the routing domain of a machine whose pool has no network: its provider's, in which addresses are
// unique too. No network has such a name.
func ownNetwork(m *provisionrv1.Machine) string { return "provider:" + m.GetSpec().GetProvider() }

// setAddress records the address that the provider gave a machine. In a managed network it must be the assigned one.
func (a *applier) setAddress(m *provisionrv1.Machine, address string) *errs.Error {
	id := m.GetMetadata().GetName()
	addr, parseErr := netip.ParseAddr(address)
	if parseErr != nil || addr.Zone() != "" {
		return errs.New(errs.Invalid, "machine %s: %q is not an address", id, clip(address, maxName))
	}
	addr = addr.Unmap()
	if addr.String() == m.GetStatus().GetAddress() {
		return nil
	}
	network := a.Network(m.GetSpec().GetNetwork())
	if network.GetSpec().GetManaged() {
		return errs.New(errs.Conflict, "machine %s has the assigned address %s, the provider says %s", id, m.GetStatus().GetAddress(), addr)
	}
	domain := m.GetSpec().GetNetwork()
	if domain == "" {
		domain = ownNetwork(m)
	}
	a.releaseAddresses(id)
	claimed, err := a.claimAddress(domain, addr, id)
	if err != nil {
		return err
	}
	m.Status.Address = claimed
	return nil
}
