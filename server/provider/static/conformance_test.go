package static_test

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/provider/static"
)

// records are what the control loop commits before it calls a provider; all is as it is there, but for the log.
type records struct {
	mu       sync.Mutex
	machines map[string]*provisionrv1.Machine
}

func (r *records) all() iter.Seq[*provisionrv1.Machine] {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Values(slices.Collect(maps.Values(r.machines)))
}

// loop is a provider under a control loop: intent first, then the call.
type loop struct {
	*static.Provider
	records *records
}

func (l loop) Launch(ctx context.Context, request provider.LaunchRequest) (provider.Instance, error) {
	id := request.Request.GetMachineId()
	l.records.mu.Lock()
	if id != "" && l.records.machines[id] == nil {
		l.records.machines[id] = &provisionrv1.Machine{
			Metadata: &provisionrv1.Metadata{Name: id}, Spec: &provisionrv1.MachineSpec{Provider: "metal"},
			Status: &provisionrv1.MachineStatus{
				Phase: provisionrv1.Phase_PHASE_LAUNCHING, Launch: request.Request, Address: request.Request.GetAddress(),
				// Its agent joins at once: nobody has to go to a suite's machines.
				SessionSeen: true,
			},
		}
	}
	l.records.mu.Unlock()
	i, err := l.Provider.Launch(ctx, request)
	if provider.KindOf(err) == provider.Invalid {
		// What can never be is given up; the suite tries the same machine again.
		l.records.mu.Lock()
		delete(l.records.machines, id)
		l.records.mu.Unlock()
	}
	return i, err
}

func (l loop) Terminate(ctx context.Context, id, providerID string) error {
	l.end(id)
	return l.Provider.Terminate(ctx, id, providerID)
}

func (l loop) end(id string) {
	l.records.mu.Lock()
	defer l.records.mu.Unlock()
	if m := l.records.machines[id]; m != nil {
		m = proto.CloneOf(m)
		m.Status.Phase = provisionrv1.Phase_PHASE_TERMINATING
		l.records.machines[id] = m
	}
}

func TestConformance(t *testing.T) {
	var mu sync.Mutex
	clusters := map[string]*records{}
	without := map[providertest.Case]string{}
	for reason, cases := range map[string][]providertest.Case{
		"a person brings what machines there are: there are no types, images, prices or quota": {
			providertest.ResolveType, providertest.ResolveSpot, providertest.ResolveTypos, providertest.PartialBatch,
			providertest.QuotaTyped, providertest.ResolveQuota, providertest.SendsChoice,
		},
		"there is no API that could fail, throttle, page or be asked for credentials": {
			providertest.LostLaunch, providertest.LostTerminate, providertest.CancelAtEachCall, providertest.FailAtEachCall,
			providertest.Pagination, providertest.BrokenList, providertest.Throttling, providertest.NoCallUnlimited,
			providertest.MissingCredentials, providertest.RefusedCredentials,
		},
		"nothing is called that could be cut off":                          {providertest.Cancelled},
		"a machine is one record: there is neither leftover nor duplicate": {providertest.OrphanSweep, providertest.DuplicatesPruned},
		"the agent filters on the machine": {
			providertest.FirewallConverges, providertest.FirewallPlan, providertest.FirewallDelete, providertest.FirewallLost,
		},
	} {
		for _, c := range cases {
			without[c] = reason
		}
	}
	providertest.Run(t, providertest.Config{
		Name: "static",
		New: func(t *testing.T, cluster string) provider.Provider {
			mu.Lock()
			defer mu.Unlock()
			if clusters[cluster] == nil {
				clusters[cluster] = &records{machines: map[string]*provisionrv1.Machine{}}
			}
			r := clusters[cluster]
			p, err := static.New(static.Config{Name: "metal", Machines: r.all})
			if err != nil {
				t.Fatal(err)
			}
			return loop{p, r}
		},
		Without: without,
	})
}
