package reconcile

import (
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// Short names of the phases.
const (
	pending     = provisionrv1.Phase_PHASE_PENDING
	launching   = provisionrv1.Phase_PHASE_LAUNCHING
	booting     = provisionrv1.Phase_PHASE_BOOTING
	joining     = provisionrv1.Phase_PHASE_JOINING
	converging  = provisionrv1.Phase_PHASE_CONVERGING
	ready       = provisionrv1.Phase_PHASE_READY
	degraded    = provisionrv1.Phase_PHASE_DEGRADED
	unreachable = provisionrv1.Phase_PHASE_UNREACHABLE
	draining    = provisionrv1.Phase_PHASE_DRAINING
	terminating = provisionrv1.Phase_PHASE_TERMINATING
	gone        = provisionrv1.Phase_PHASE_GONE
	failed      = provisionrv1.Phase_PHASE_FAILED
)

// Defaults of Safety.
const (
	defaultSilentAfter      = 120 * time.Second
	defaultBootDeadline     = 600 * time.Second
	defaultConvergeDeadline = 1800 * time.Second
)

// safety is a pool's Safety with its defaults.
type safety struct {
	maxUnavailable, maxSurge                    int
	repair                                      bool
	silentAfter, bootDeadline, convergeDeadline time.Duration
}

func safetyOf(p *provisionrv1.Pool) safety {
	s := p.GetSpec().GetSafety()
	out := safety{
		maxUnavailable: state.MaxUnavailable(p), repair: !s.GetRepairDisabled(), silentAfter: defaultSilentAfter,
		bootDeadline: defaultBootDeadline, convergeDeadline: defaultConvergeDeadline,
	}
	out.maxSurge = int(s.GetMaxSurge())
	if s.GetSilentAfter() != nil {
		out.silentAfter = s.GetSilentAfter().AsDuration()
	}
	if s.GetBootDeadline() != nil {
		out.bootDeadline = s.GetBootDeadline().AsDuration()
	}
	if s.GetConvergeDeadline() != nil {
		out.convergeDeadline = s.GetConvergeDeadline().AsDuration()
	}
	return out
}

// unreachableAfter is how long an agent is silent before its machine shows as unreachable: soon enough to be seen, long
// enough for an agent to change servers.
func (s safety) unreachableAfter() time.Duration {
	return min(max(s.silentAfter/4, time.Second), 30*time.Second)
}

// backoff doubles from base with each failure after the first, up to the limit.
func backoff(failures int, base, limit time.Duration) time.Duration {
	return min(base<<min(max(failures-1, 0), 16), limit)
}
