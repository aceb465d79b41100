package session

import (
	"sync"
	"time"
)

// What one machine may cause, on average and at once, however it is made to behave. What an agent does by itself stays far
// below.
const (
	callEvery, callBurst = time.Second, 64
	// Reports wait and are merged, events above the pace are dropped, facts come with a later report.
	reportEvery, reportBurst = time.Second / 2, 128
	eventEvery, eventBurst   = time.Second, 256
	factsEvery, factsBurst   = 30 * time.Second, 8
)

// pace lets each machine do something so often: a burst at once, then one in each interval.
type pace struct {
	every time.Duration
	burst int

	mu sync.Mutex
	// until is when a machine will have made up for all that it did; who has, is left out now and then.
	until map[string]time.Time
	prune int
}

func newPace(every time.Duration, burst int) *pace {
	return &pace{every: every, burst: burst, until: map[string]time.Time{}, prune: 1024}
}

// allow says whether the machine may do it now, which then counts.
func (p *pace) allow(machineID string) bool {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	until := p.until[machineID]
	if until.Before(now) {
		until = now
	}
	if until.Sub(now) > time.Duration(p.burst-1)*p.every {
		return false
	}
	p.until[machineID] = until.Add(p.every)
	if len(p.until) > p.prune {
		for id, t := range p.until {
			if t.Before(now) {
				delete(p.until, id)
			}
		}
		p.prune = max(1024, 2*len(p.until))
	}
	return true
}
