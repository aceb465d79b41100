package providertest

import (
	"strings"
	"sync"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/sim"
)

// Cloud is an account in memory with the machines of any number of clusters.
type Cloud = sim.Cloud

// Instance is a machine of a Cloud.
type Instance = sim.Instance

// SimControls are all the controls of a simulated cloud, whose SetFault they take for themselves. Credentials are not among
// them: there are none.
func SimControls(c *Cloud) Controls {
	f := &faults{}
	c.SetFault(f.check)
	return Controls{
		Capacity: func(t *testing.T, more int) {
			c.SetCapacity("", "", len(c.Instances())+more)
			t.Cleanup(func() { c.SetCapacity("", "", -1) })
		},
		Quota: func(t *testing.T, more int) {
			c.SetQuota(len(c.Instances()) + more)
			t.Cleanup(func() { c.SetQuota(-1) })
		},
		Throttle: func(_ *testing.T, calls int, after time.Duration) { c.Throttle(calls, after) },
		LoseResponse: func(_ *testing.T, op Op) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.lose = "lost-" + string(op)
		},
		Fail: func(_ *testing.T, skip, calls int) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.skip, f.fail = skip, calls
		},
		Watch: func(_ *testing.T, watch func()) func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.watch = watch
			return func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.watch = nil
			}
		},
		Calls: func() uint64 { return c.Calls("") },
		Limited: func(p provider.Provider) uint64 {
			limited, ok := p.(interface{ Limiter() *provider.Limiter })
			if !ok {
				return 0
			}
			return limited.Limiter().Calls()
		},
		Fill: func(_ *testing.T, cluster string, n int) ([]string, func()) {
			ids := make([]string, n)
			requests := make([]*provisionrv1.LaunchRequest, n)
			for k := range ids {
				ids[k] = "m-" + random(16)
				requests[k] = &provisionrv1.LaunchRequest{MachineId: ids[k], ClusterId: cluster, Pool: pool}
			}
			c.Add(cluster, requests...)
			return ids, func() { c.Remove(cluster, ids...) }
		},
		Duplicate: func(_ *testing.T, cluster, machineID string) { c.Duplicate(cluster, machineID) },
		Leftover:  func(_ *testing.T, cluster, machineID string) { c.Leave(cluster, machineID) },
		Sent: func(t *testing.T, machineID string) *provisionrv1.Choice {
			for _, i := range c.Instances() {
				if i.MachineID == machineID {
					return i.Request.GetChoice()
				}
			}
			t.Fatalf("the cloud has no machine %s", machineID)
			return nil
		},
		Rules: func(_ *testing.T, cluster, pool string) ([]provider.FirewallRule, bool) {
			return c.Rules(cluster, pool)
		},
		AddRule: func(_ *testing.T, cluster, pool string, rule provider.FirewallRule) {
			c.AddRule(cluster, pool, rule)
		},
	}
}

// faults are those that the controls ask for.
type faults struct {
	mu         sync.Mutex
	lose       string
	skip, fail int
	watch      func()
}

func (f *faults) check(op, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case op == f.lose:
		f.lose = ""
		return provider.Errorf(provider.Unknown, "the response to %s was lost", op)
	case strings.HasPrefix(op, "lost-"):
		return nil
	}
	if f.watch != nil {
		f.watch()
	}
	switch {
	case f.fail == 0:
		return nil
	case f.skip > 0:
		f.skip--
		return nil
	}
	f.fail--
	return provider.Errorf(provider.Unknown, "500 Internal Server Error from %s", op)
}

// SimTypos are wishes that a simulated cloud cannot fulfil.
func SimTypos() []Typo {
	return []Typo{
		{"an image", func(w *provisionrv1.Wish) { w.Image = &provisionrv1.Image{Name: "debain-12-amd64"} }, "debian-12-amd64"},
		{"a zone", func(w *provisionrv1.Wish) { w.Placement = &provisionrv1.Placement{Zones: []string{"sim-"}} }, "sim-a"},
		{"a network", func(w *provisionrv1.Wish) { w.Network.Spec.Id = "defualt" }, "default"},
	}
}
