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
	"github.com/provisionr/provisionr/server/state"
)

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
			c.GetId(), state.PhaseName(before), state.PhaseName(c.GetTo()))
	}
	if !mayMove(before, c.GetTo(), m.GetStatus().GetAttempt()) {
		return errs.New(errs.Conflict, "machine %s cannot go from %s to %s", c.GetId(), state.PhaseName(before), state.PhaseName(c.GetTo()))
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
	if c.GetTo() != provisionrv1.Phase_PHASE_GONE {
		if err := a.setAddresses(m, c.GetAddress(), c.GetAddress6()); err != nil {
			return err
		}
	}
	a.endReboot(m)
	if gone := c.GetTo() == provisionrv1.Phase_PHASE_GONE; gone {
		s.Deadline = nil
		s.Vpn, s.VpnAddress, s.Reboot = "", "", nil
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
	name := state.PhaseName(phase)
	warning := phase == provisionrv1.Phase_PHASE_FAILED || phase == provisionrv1.Phase_PHASE_DEGRADED || phase == provisionrv1.Phase_PHASE_UNREACHABLE
	message := fmt.Sprintf("%s is %s", m.GetSpec().GetSlot(), name)
	if reason := m.GetStatus().GetReason(); reason != "" {
		message += ": " + reason
	}
	a.event("Machine"+strings.ToUpper(name[:1])+name[1:], message, warning, "", m)
}

// ownNetwork names the routing domain of a machine whose pool has no network: its provider's, in which addresses are
// unique too.
func ownNetwork(m *provisionrv1.Machine) string {
	return state.ProviderDomain(m.GetSpec().GetProvider())
}

// setAddresses records the addresses that the provider gave a machine; an empty one stays what it was.
func (a *applier) setAddresses(m *provisionrv1.Machine, address, address6 string) *errs.Error {
	if address != "" {
		if err := a.setAddress(m, address); err != nil {
			return err
		}
	}
	if address6 == "" {
		return nil
	}
	addr, err := netip.ParseAddr(address6)
	if err != nil || addr.Zone() != "" || !addr.Is6() || addr.Is4In6() {
		return errs.New(errs.Invalid, "machine %s: %q is not an IPv6 address", m.GetMetadata().GetName(), clip(address6, maxName))
	}
	if addr.String() == m.GetStatus().GetAddress6() || addr.String() == m.GetStatus().GetAddress() {
		return nil
	}
	if a.Network(m.GetSpec().GetNetwork()).GetSpec().GetManaged() {
		return errs.New(errs.Conflict, "machine %s is in a managed network, the provider says that it has %s", m.GetMetadata().GetName(), addr)
	}
	claimed, refused := a.exchangeAddress(m, m.GetStatus().GetAddress6(), addr)
	if refused != nil {
		return refused
	}
	m.Status.Address6 = claimed
	return nil
}

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
	if a.Network(m.GetSpec().GetNetwork()).GetSpec().GetManaged() {
		return errs.New(errs.Conflict, "machine %s has the assigned address %s, the provider says %s", id, m.GetStatus().GetAddress(), addr)
	}
	if addr.String() == m.GetStatus().GetAddress6() {
		m.Status.Address6 = ""
	}
	claimed, err := a.exchangeAddress(m, m.GetStatus().GetAddress(), addr)
	if err != nil {
		return err
	}
	m.Status.Address = claimed
	return nil
}

// exchangeAddress has a machine claim an address instead of another one, which may be empty.
func (a *applier) exchangeAddress(m *provisionrv1.Machine, before string, addr netip.Addr) (string, *errs.Error) {
	id, domain := m.GetMetadata().GetName(), m.GetSpec().GetNetwork()
	if domain == "" {
		domain = ownNetwork(m)
	}
	if before != "" {
		a.releaseAddress(a.Claim(domain, before), id)
	}
	return a.claimAddress(domain, addr, id)
}
