package state

import (
	"fmt"
	"strings"

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

// PhaseName returns a phase as people read it, as booting.
func PhaseName(p provisionrv1.Phase) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PHASE_"))
}

// PoolStatus derives what is known of a pool from its machines. A machine counts as ready when its phase is ready and
// its agent has converged to the pool's present generation. Heirs count as machines, but neither for nor against what the
// pool is: they serve nobody yet. What they wait for is told.
func PoolStatus(s *Snapshot, p *provisionrv1.Pool) *provisionrv1.PoolStatus {
	status := &provisionrv1.PoolStatus{}
	name := p.GetMetadata().GetName()
	heirs := map[string]bool{}
	for slot := range s.SlotsOf(name) {
		if slot.GetHeir() != "" {
			heirs[slot.GetHeir()] = true
		}
	}
	var failing, behind uint32
	var reason, delay string
	for m := range s.MachinesOf(name) {
		phase := m.GetStatus().GetPhase()
		if phase == provisionrv1.Phase_PHASE_GONE {
			continue
		}
		status.Machines++
		if why := m.GetStatus().GetReason(); delay == "" && phase <= provisionrv1.Phase_PHASE_BOOTING && strings.HasPrefix(why, Waiting) {
			delay = fmt.Sprintf("; %s is %s", m.GetSpec().GetSlot(), why)
		}
		if heirs[m.GetMetadata().GetName()] {
			continue
		}
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
		status.State, status.Message = PoolDegraded, reason+delay
	case status.Ready < least:
		status.State, status.Message = PoolProgressing, fmt.Sprintf("%d of %d machines are ready", status.Ready, size)
		if behind > 0 {
			status.Message += fmt.Sprintf(", %d converge to generation %d", behind, p.GetMetadata().GetGeneration())
		}
		status.Message += delay
	default:
		status.State = PoolReady
		if failing > 0 {
			status.Message = reason
		}
	}
	if n := len(heirs); n > 0 && status.GetMessage() == "" {
		status.Message = fmt.Sprintf("machines prepared to take over: %d%s", n, delay)
	}
	return status
}

// Waiting begins the reason of a machine that cannot go on for a cause outside: its pool's status tells it.
const Waiting = "waiting: "

// Outdated says why a machine cannot become what its pool wants, so that it must be replaced; it is empty where the agent
// can converge to it.
func Outdated(p *provisionrv1.Pool, m *provisionrv1.Machine) string {
	spec, made := p.GetSpec(), m.GetSpec()
	switch {
	case !proto.Equal(spec.GetOs(), made.GetOs()):
		return "the pool has another operating system"
	case !sameHardware(spec.GetHardware(), made.GetHardware()):
		return "the pool has other hardware"
	case !sameOrEmpty(spec.GetImage(), made.GetImage()):
		return "the pool has another image"
	case !sameOrEmpty(spec.GetPlacement(), made.GetPlacement()):
		return "the pool has another placement"
	case !proto.Equal(spec.GetSpot(), made.GetSpot()):
		return "the pool has other wishes for spot capacity"
	case ProviderName(p) != made.GetProvider():
		return "the pool has another provider"
	case spec.GetNetwork() != "" && spec.GetNetwork() != made.GetNetwork():
		return "the pool has another network"
	case spec.GetZone() != "" && spec.GetZone() != made.GetZone():
		return "the pool has another zone"
	}
	return ""
}

// sameHardware compares hardware with its default filled in: an architecture of amd64.
func sameHardware(a, b *provisionrv1.Hardware) bool {
	if sameOrEmpty(a, b) {
		return true
	}
	standard := func(h *provisionrv1.Hardware) *provisionrv1.Hardware {
		if h.GetArchitecture() != "" {
			return h
		}
		full := &provisionrv1.Hardware{}
		proto.Merge(full, h)
		full.Architecture = "amd64"
		return full
	}
	return proto.Equal(standard(a), standard(b))
}

// sameOrEmpty compares messages of which none is as good as an empty one. Spot is none of these: an empty one asks for it.
func sameOrEmpty[T proto.Message](a, b T) bool {
	switch left, right := a.ProtoReflect().IsValid(), b.ProtoReflect().IsValid(); {
	case left && right:
		return proto.Equal(a, b)
	case left:
		return proto.Size(a) == 0
	case right:
		return proto.Size(b) == 0
	}
	return true
}
