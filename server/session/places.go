package session

import (
	"sync"

	"github.com/provisionr/provisionr/internal/errs"
)

// perMachine bounds how many calls of a kind one machine has in progress: it waits for them one after the other.
const perMachine = 2

// places bounds the calls in progress of one kind, of all machines and of each.
type places struct {
	most int

	mu    sync.Mutex
	taken map[string]int
	all   int
}

func newPlaces(most int) *places { return &places{most: most, taken: map[string]int{}} }

// take returns what gives the place back, or has kind Exhausted: the agent asks again.
func (p *places) take(machineID, what string) (giveBack func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= p.most || p.taken[machineID] >= perMachine {
		return nil, errs.New(errs.Exhausted, "too many %s at once: ask again", what)
	}
	p.all++
	p.taken[machineID]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.taken[machineID]--; p.taken[machineID] == 0 {
			delete(p.taken, machineID)
		}
	}, nil
}
