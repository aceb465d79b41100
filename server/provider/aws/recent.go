package aws

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/provisionr/provisionr/server/provider"
)

// consistencyWindow is how long after a launch the reads of EC2 may not show an instance. The documents name no bound
// ("Eventual consistency in the Amazon EC2 API": "a couple of seconds" up to minutes).
const consistencyWindow = 2 * time.Minute

// recentLimit bounds what is remembered: at two launches a second, a window has some hundreds.
const recentLimit = 10000

// recent remembers what this process has launched and terminated lately, so that a read that lags does not deny it. Its
// zero value is ready.
type recent struct {
	mu   sync.Mutex
	made map[string]launched // by the instance's id
}

type launched struct {
	provider.Instance
	at time.Time
}

func (r *recent) launched(i provider.Instance, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made == nil {
		r.made = map[string]launched{}
	}
	for id, l := range r.made {
		if now.Sub(l.at) > consistencyWindow {
			delete(r.made, id)
		}
	}
	if before, ok := r.made[i.ProviderID]; ok {
		i, now = before.Instance, before.at // a repeated launch does not make it younger
	}
	if len(r.made) < recentLimit {
		r.made[i.ProviderID] = launched{i, now}
	}
}

// ended forgets an instance that is terminated or is about to be.
func (r *recent) ended(providerID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.made, providerID)
}

// unseen returns the remembered instances that seen does not have, by id.
func (r *recent) unseen(seen map[string]bool, now time.Time) []provider.Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []provider.Instance
	for id, l := range r.made {
		if now.Sub(l.at) <= consistencyWindow && !seen[id] {
			all = append(all, l.Instance)
		}
	}
	slices.SortFunc(all, func(a, b provider.Instance) int { return cmp.Compare(a.ProviderID, b.ProviderID) })
	return all
}

// of returns the remembered instances of a machine.
func (r *recent) of(machineID string, now time.Time) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for id, l := range r.made {
		if l.MachineID == machineID && now.Sub(l.at) <= consistencyWindow {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return all
}
