package api

import (
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/provisionr/provisionr/internal/errs"
	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/state"
)

// fanOut calls f for each machine, at most FanOut at a time, and returns when all calls have. A panic of f is raised
// again here, where the chain catches it: in a goroutine it would end the server.
func fanOut(machines []*provisionrv1.Machine, f func(*provisionrv1.Machine)) {
	work := make(chan *provisionrv1.Machine)
	panics := make(chan any, len(machines))
	one := func(m *provisionrv1.Machine) {
		defer func() {
			if p := recover(); p != nil {
				panics <- p
			}
		}()
		f(m)
	}
	var workers sync.WaitGroup
	for range min(FanOut, len(machines)) {
		workers.Go(func() {
			for m := range work {
				one(m)
			}
		})
	}
	for _, m := range machines {
		work <- m
	}
	close(work)
	workers.Wait()
	select {
	case p := <-panics:
		panic(p)
	default:
	}
}

// failures collects the errors of a fan-out.
type failures struct {
	mu    sync.Mutex
	names []string
	first error
}

func (f *failures) add(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names = append(f.names, name)
	if f.first == nil {
		f.first = err
	}
}

// maxNamed bounds how many machines an error names.
const maxNamed = 10

func (f *failures) err(verb string) error {
	if len(f.names) == 0 {
		return nil
	}
	slices.Sort(f.names)
	named := strings.Join(f.names[:min(len(f.names), maxNamed)], ", ")
	if len(f.names) > maxNamed {
		named += " and more"
	}
	return errs.New(errs.KindOf(f.first), "cannot %s %s: %w", verb, named, f.first)
}

// living reports whether a machine may have an agent.
func living(m *provisionrv1.Machine) bool {
	switch m.GetStatus().GetPhase() {
	case provisionrv1.Phase_PHASE_GONE, provisionrv1.Phase_PHASE_PENDING, provisionrv1.Phase_PHASE_LAUNCHING:
		return false
	}
	return true
}

func livingOf(snapshot *state.Snapshot, pool string) []*provisionrv1.Machine {
	var machines []*provisionrv1.Machine
	for m := range snapshot.MachinesOf(pool) {
		if living(m) {
			machines = append(machines, m)
		}
	}
	return machines
}

// bounded reads a duration of a request: unset or zero gives the default.
func bounded(field string, d *durationpb.Duration, unset, most time.Duration) (time.Duration, error) {
	if d == nil {
		return unset, nil
	}
	v := d.AsDuration()
	if err := d.CheckValid(); err != nil || v < 0 || v > most {
		return 0, errs.New(errs.Invalid, "cannot accept %s: it must be between 0s and %s", field, most)
	}
	if v == 0 {
		return unset, nil
	}
	return v, nil
}
