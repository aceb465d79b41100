package state

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// The states of a pool.
const (
	PoolReady       = "ready"
	PoolProgressing = "progressing"
	PoolDegraded    = "degraded"
	PoolDeleting    = "deleting"
)

// PoolStatus derives what is known of a pool from its machines. A machine counts as ready when its phase is ready and
// its agent has converged to the pool's present generation.
func PoolStatus(s *Snapshot, p *provisionrv1.Pool) *provisionrv1.PoolStatus {
	status := &provisionrv1.PoolStatus{}
	var failing, behind uint32
	var reason string
	for m := range s.MachinesOf(p.GetMetadata().GetName()) {
		phase := m.GetStatus().GetPhase()
		if phase == provisionrv1.Phase_PHASE_GONE {
			continue
		}
		status.Machines++
		switch phase {
		case provisionrv1.Phase_PHASE_READY:
			if m.GetStatus().GetAgent().GetPoolGeneration() == p.GetMetadata().GetGeneration() {
				status.Ready++
			} else {
				behind++
			}
		case provisionrv1.Phase_PHASE_DEGRADED, provisionrv1.Phase_PHASE_UNREACHABLE, provisionrv1.Phase_PHASE_FAILED:
			if failing++; reason == "" {
				reason = fmt.Sprintf("%s: %s", m.GetSpec().GetSlot(), m.GetStatus().GetReason())
			}
		}
	}
	size := p.GetSpec().GetSize()
	least := size
	if p.GetSpec().MinSize != nil {
		least = min(size, p.GetSpec().GetMinSize())
	}
	switch {
	case p.GetMetadata().GetDeleted() != nil:
		status.State, status.Message = PoolDeleting, fmt.Sprintf("%d machines still to go", status.Machines)
	case failing > 0 && status.Ready < least:
		status.State, status.Message = PoolDegraded, reason
	case status.Ready < least:
		status.State, status.Message = PoolProgressing, fmt.Sprintf("%d of %d machines are ready", status.Ready, size)
		if behind > 0 {
			status.Message += fmt.Sprintf(", %d converge to generation %d", behind, p.GetMetadata().GetGeneration())
		}
	default:
		status.State = PoolReady
		if failing > 0 {
			status.Message = reason
		}
	}
	return status
}

// Outdated says why a machine cannot become what its pool wants, so that it must be replaced; it is empty where the agent
// can converge to it.
func Outdated(p *provisionrv1.Pool, m *provisionrv1.Machine) string {
	spec, made := p.GetSpec(), m.GetSpec()
	hardware := func(h *provisionrv1.Hardware) *provisionrv1.Hardware {
		if h == nil {
			return &provisionrv1.Hardware{}
		}
		return h
	}
	switch {
	case !proto.Equal(spec.GetOs(), made.GetOs()):
		return "the pool has another operating system"
	case !proto.Equal(hardware(spec.GetHardware()), hardware(made.GetHardware())):
		return "the pool has other hardware"
	case ProviderName(p) != made.GetProvider():
		return "the pool has another provider"
	case spec.GetNetwork() != "" && spec.GetNetwork() != made.GetNetwork():
		return "the pool has another network"
	case spec.GetZone() != "" && spec.GetZone() != made.GetZone():
		return "the pool has another zone"
	}
	return ""
}
