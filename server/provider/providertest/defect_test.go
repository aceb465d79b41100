package providertest_test

import (
	"context"
	"flag"
	"iter"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/provider/sim"
)

// defect is what is wrong with the provider of TestDefective; empty for nothing.
var defect = flag.String("defect", "", "what TestDefective's provider does wrong")

// defects are mistakes that providers make, by name, with the case that finds each.
func defects() map[string]providertest.Case {
	return map[string]providertest.Case{
		"terminating what is absent fails":         providertest.AbsentIsSuccess,
		"a cancelled list looks complete":          providertest.Cancelled,
		"a cancelled launch says there is no room": providertest.Cancelled,
		"too much user-data is cut":                providertest.UserDataLimit,
		"a network changes with each call":         providertest.Network,
		"a second launch makes a second machine":   providertest.Life,
		"all clusters are listed":                  providertest.TagIsolation,
		"a machine rises again":                    providertest.LateLaunch,
		"prune keeps nothing":                      providertest.PruneKeeps,
		"a smaller type is launched":               providertest.SendsChoice,
		"a lost response is taken for a refusal":   providertest.LostLaunch,
		"no capacity is unknown":                   providertest.PartialBatch,
		"what was refused leaves a disk":           providertest.PartialBatch,
		"quota is capacity":                        providertest.QuotaTyped,
		"a throttled call says nothing of when":    providertest.Throttling,
		"a list ends with its first page":          providertest.Pagination,
		"a list that breaks looks complete":        providertest.BrokenList,
		"leftovers are not listed":                 providertest.OrphanSweep,
		"the limiter is not asked":                 providertest.NoCallUnlimited,
		"a misspelt type is just unknown":          providertest.ResolveType,
		"spot comes last":                          providertest.ResolveSpot,
		"quota is no matter":                       providertest.ResolveQuota,
		"rules stay for ever":                      providertest.FirewallConverges,
		"planning is doing":                        providertest.FirewallPlan,
		"nothing is planned":                       providertest.FirewallPlan,
		"groups stay for ever":                     providertest.FirewallConverges,
		"a group in use is said to be deleted":     providertest.FirewallDelete,
	}
}

// TestDefective runs the suite on a provider with the defect of the flag.
func TestDefective(t *testing.T) {
	cloud := &providertest.Cloud{}
	cloud.Capabilities.ListPage = 100
	var mu sync.Mutex
	conform(t, cloud, func(c *providertest.Config) {
		c.Timeout = 500 * time.Millisecond // the cloud is instant
		c.New = func(_ *testing.T, cluster string) provider.Provider {
			p := defective{cloud.Provider(cluster), cloud, cluster, *defect, &mu}
			if p.is("the limiter is not asked") {
				return unlimited{p, p}
			}
			return p
		}
	})
}

// TestSuiteFindsDefects runs the suite on each defect, in a process of its own, as its failure is what is wanted.
func TestSuiteFindsDefects(t *testing.T) {
	for what, wanted := range defects() {
		out, err := exec.Command(os.Args[0], "-test.run=^TestDefective$", "-defect="+what).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "--- FAIL: TestDefective/"+string(wanted)+" ") {
			t.Errorf("%s: %s did not find it: %v\n%s", what, wanted, err, out)
		}
	}
}

// defective is a provider with one defect.
type defective struct {
	*sim.Provider
	cloud        *sim.Cloud
	cluster, bad string
	mu           *sync.Mutex
}

func (p defective) is(what string) bool { return p.bad == what }

// unlimited hides the limiter.
type unlimited struct {
	provider.Provider
	provider.FirewallGroups
}

func (p defective) List(ctx context.Context) iter.Seq2[provider.Instance, error] {
	from := p.Provider
	if p.is("all clusters are listed") {
		from = p.cloud.Provider(strings.TrimSuffix(p.cluster, "x"))
	}
	return func(yield func(provider.Instance, error) bool) {
		n := 0
		for i, err := range from.List(ctx) {
			switch n++; {
			case err != nil && (p.is("a list that breaks looks complete") && ctx.Err() == nil || p.is("a cancelled list looks complete")),
				p.is("a list ends with its first page") && n > 100:
				return
			case p.is("leftovers are not listed") && i.State == provider.Stopped:
				continue
			}
			if !yield(i, err) {
				return
			}
		}
	}
}

func (p defective) Launch(ctx context.Context, r provider.LaunchRequest) (provider.Instance, error) {
	id := r.Request.GetMachineId()
	switch {
	case p.is("too much user-data is cut"):
		r.UserData = r.UserData[:min(len(r.UserData), 10)]
	case p.is("a smaller type is launched") && r.Request.GetChoice().GetType() != "":
		r.Request = proto.CloneOf(r.Request)
		r.Request.Choice.Type = "a1.small"
	case p.is("a second launch makes a second machine"):
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.cloud.Launched(id) > 0 {
			p.cloud.Duplicate(p.cluster, id)
		}
	}
	i, err := p.Provider.Launch(ctx, r)
	kind := provider.KindOf(err)
	as := func(kind provider.Kind) (provider.Instance, error) { return i, provider.Errorf(kind, "%w", err) }
	switch {
	case p.is("a machine rises again") && err != nil && strings.Contains(err.Error(), "was terminated"):
		p.cloud.Add(p.cluster, r.Request)
		return provider.Instance{MachineID: id, ProviderID: "i-again", State: provider.Running}, nil
	case p.is("a cancelled launch says there is no room") && ctx.Err() != nil,
		p.is("a lost response is taken for a refusal") && kind == provider.Unknown && ctx.Err() == nil,
		p.is("quota is capacity") && kind == provider.QuotaExceeded:
		return as(provider.NoCapacity)
	case p.is("no capacity is unknown") && kind == provider.NoCapacity:
		return as(provider.Unknown)
	case p.is("what was refused leaves a disk") && kind == provider.NoCapacity:
		p.cloud.Leave(p.cluster, id)
	case p.is("a throttled call says nothing of when") && kind == provider.RateLimited:
		return as(provider.RateLimited)
	}
	return i, err
}

func (p defective) Terminate(ctx context.Context, machineID, providerID string) error {
	if p.is("terminating what is absent fails") && p.cloud.Launched(machineID) == 0 {
		return provider.Errorf(provider.NotFound, "no machine %s", machineID)
	}
	return p.Provider.Terminate(ctx, machineID, providerID)
}

func (p defective) Prune(ctx context.Context, machineID, keep string) error {
	if p.is("prune keeps nothing") {
		p.cloud.Remove(p.cluster, machineID)
		return nil
	}
	return p.Provider.Prune(ctx, machineID, keep)
}

func (p defective) EnsureNetwork(ctx context.Context, n *provisionrv1.Network) (*provisionrv1.NetworkSpec, error) {
	spec, err := p.Provider.EnsureNetwork(ctx, n)
	if p.is("a network changes with each call") && err == nil {
		spec.DnsServers = append(spec.DnsServers, "10.0.0.1")
	}
	return spec, err
}

func (p defective) Resolve(ctx context.Context, w *provisionrv1.Wish) (*provisionrv1.Offer, error) {
	if p.is("quota is no matter") {
		w = proto.CloneOf(w)
		w.Count = 0
	}
	offer, err := p.Provider.Resolve(ctx, w)
	switch {
	case err != nil && p.is("a misspelt type is just unknown"):
		return nil, provider.Errorf(provider.Invalid, "no such thing")
	case err == nil && p.is("spot comes last") && w.GetSpot().GetFallback():
		n := len(offer.Choices) / 2
		offer.Choices = append(offer.Choices[n:], offer.Choices[:n]...)
	}
	return offer, err
}

func (p defective) EnsureFirewall(ctx context.Context, f provider.Firewall) error {
	if p.is("rules stay for ever") {
		present, _ := p.cloud.Rules(p.cluster, f.Pool)
		f.Rules = append(present, f.Rules...)
	}
	return p.Provider.EnsureFirewall(ctx, f)
}

func (p defective) PlanFirewall(ctx context.Context, f provider.Firewall) ([]string, error) {
	lines, err := p.Provider.PlanFirewall(ctx, f)
	switch {
	case p.is("nothing is planned"):
		return nil, err
	case p.is("planning is doing") && err == nil:
		return lines, p.EnsureFirewall(ctx, f)
	}
	return lines, err
}

func (p defective) DeleteFirewall(ctx context.Context, pool string) error {
	switch {
	case p.is("groups stay for ever"):
		return nil
	case p.is("a group in use is said to be deleted"):
		// The error of the group in use is swallowed.
		_ = p.Provider.DeleteFirewall(ctx, pool)
		return nil
	}
	return p.Provider.DeleteFirewall(ctx, pool)
}
