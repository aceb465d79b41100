package state

import provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

// MaxUnavailable is how many machines of a pool may be unready at once by our own doing.
func MaxUnavailable(p *provisionrv1.Pool) int {
	if s := p.GetSpec().GetSafety(); s != nil && s.MaxUnavailable != nil {
		return int(s.GetMaxUnavailable())
	}
	return max(1, int(p.GetSpec().GetSize())/4)
}

// Away counts the machines of a pool's slots that do not serve, or are about to boot again, beside one of them.
func (s *Snapshot) Away(p *provisionrv1.Pool, beside string) int {
	away := 0
	for slot := range s.SlotsOf(p.GetMetadata().GetName()) {
		status := s.Machine(slot.GetHolder()).GetStatus()
		if slot.GetIndex() <= p.GetSpec().GetSize() && slot.GetHolder() != beside &&
			(status.GetPhase() != provisionrv1.Phase_PHASE_READY || status.GetReboot() != nil) {
			away++
		}
	}
	return away
}
