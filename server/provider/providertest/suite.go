package providertest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// pool that the suite's machines belong to.
const pool = "pt"

// run is one run with a cluster of its own, so that runs beside each other or after a failure do not meet.
type run struct {
	Config
	cluster string
	made    int
}

// test is one case: what it needs, and what it does with a provider made anew.
type test struct {
	name Case
	// possible says that all controls are there.
	possible bool
	f        func(*testing.T, provider.Provider)
}

func (r *run) tests() []test {
	c := &r.Cloud
	firewall := c.Rules != nil && c.AddRule != nil
	return []test{
		{Capabilities, true, r.capabilities},
		{Network, true, r.network},
		{AbsentIsSuccess, true, r.absent},
		{Cancelled, true, r.cancelled},
		{UserDataLimit, true, r.userDataLimit},
		{ResolveHardware, true, r.resolveHardware},
		{ResolveType, true, r.resolveType},
		{ResolveSpot, true, r.resolveSpot},
		{ResolveTypos, len(r.Typos) > 0, r.resolveTypos},
		{ResolveQuota, c.Quota != nil, r.resolveQuota},
		{Life, true, r.life},
		{ConcurrentLaunch, true, r.concurrent},
		{CutOffLaunch, true, r.cutOff},
		{TagIsolation, true, r.isolation},
		{LateLaunch, true, r.lateLaunch},
		{PruneKeeps, true, r.pruneKeeps},
		{SendsChoice, c.Sent != nil, r.sendsChoice},
		{LostLaunch, c.LoseResponse != nil, r.lostLaunch},
		{LostTerminate, c.LoseResponse != nil, r.lostTerminate},
		{CancelAtEachCall, c.Watch != nil, r.cancelAtEachCall},
		{FailAtEachCall, c.Fail != nil, r.failAtEachCall},
		{PartialBatch, c.Capacity != nil, r.partialBatch},
		{QuotaTyped, c.Quota != nil, r.quotaTyped},
		{Throttling, c.Throttle != nil && c.Calls != nil, r.throttling},
		{Pagination, c.Fill != nil, r.pagination},
		{BrokenList, c.Fill != nil && c.Fail != nil, r.brokenList},
		{OrphanSweep, c.Leftover != nil, r.orphanSweep},
		{DuplicatesPruned, c.Duplicate != nil, r.duplicates},
		{NoCallUnlimited, c.Calls != nil && c.Limited != nil, r.noCallUnlimited},
		{MissingCredentials, c.NoCredentials != nil, r.missingCredentials},
		{RefusedCredentials, c.WrongCredentials != nil, r.refusedCredentials},
		{FirewallConverges, firewall, r.firewallConverges},
		{FirewallPlan, firewall, r.firewallPlan},
		{FirewallDelete, firewall, r.firewallDelete},
		{FirewallLost, firewall && c.LoseResponse != nil, r.firewallLost},
	}
}

// Run checks the contract of provider.Provider. It launches five machines at most at a time, beside those of
// Controls.Fill, and leaves nothing.
func Run(t *testing.T, c Config) {
	if c.Network == nil {
		c.Network = &provisionrv1.Network{
			Metadata: &provisionrv1.Metadata{Name: "local", Generation: 1},
			Spec:     &provisionrv1.NetworkSpec{Cidr: "10.88.0.0/24", Provider: "local", Managed: true},
		}
	}
	c.Timeout, c.Many = cmp.Or(c.Timeout, time.Minute), cmp.Or(c.Many, 1000)
	r := &run{Config: c, cluster: "t" + random(7)}
	tests := r.tests()
	without := maps.Clone(c.Without)
	for _, test := range tests {
		if reason, excepted := without[test.name]; excepted {
			t.Logf("without %s: %s", test.name, reason)
			delete(without, test.name)
			continue
		}
		ok := t.Run(string(test.name), func(t *testing.T) {
			if !test.possible {
				t.Fatal("a control that the case needs is missing, and Config.Without does not say why")
			}
			p := c.New(t, r.cluster)
			test.f(t, p)
			r.until(t, p, "the test left nothing", func(all map[string]provider.Instance) bool { return len(all) == 0 })
		})
		if !ok {
			return
		}
	}
	for _, name := range slices.Sorted(maps.Keys(without)) {
		t.Errorf("Config.Without names %s, which is no case", name)
	}
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))[:n]
}

// networkOf returns the network, completed by the provider.
func (r *run) networkOf(t *testing.T, p provider.Provider) *provisionrv1.Network {
	t.Helper()
	n := proto.CloneOf(r.Network)
	spec, err := p.EnsureNetwork(t.Context(), proto.CloneOf(n))
	if err != nil {
		t.Fatalf("EnsureNetwork: %v", err)
	}
	n.Spec = spec
	return n
}

// wish returns the wish for count machines.
func (r *run) wish(t *testing.T, p provider.Provider, count uint32) *provisionrv1.Wish {
	t.Helper()
	w := proto.CloneOf(r.Wish)
	if w == nil {
		w = &provisionrv1.Wish{}
	}
	if w.Os == nil {
		w.Os = &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}
	}
	w.ClusterId, w.Pool, w.Network, w.Count = r.cluster, pool, r.networkOf(t, p), count
	return w
}

func (r *run) resolve(t *testing.T, p provider.Provider, w *provisionrv1.Wish) []*provisionrv1.Choice {
	t.Helper()
	offer, err := p.Resolve(t.Context(), w)
	if err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	if len(offer.GetChoices()) == 0 {
		t.Fatal("Resolve offered no choice and no error")
	}
	return offer.GetChoices()
}

// request returns a new machine's request, whose machine is terminated at the end of the test whatever happens.
func (r *run) request(t *testing.T, p provider.Provider) provider.LaunchRequest {
	t.Helper()
	w := r.wish(t, p, 1)
	spec := w.GetNetwork().GetSpec()
	r.made++
	slot := fmt.Sprintf("%s-%d", pool, r.made)
	request := provider.LaunchRequest{
		Request: &provisionrv1.LaunchRequest{
			MachineId: "m-" + random(16), ClusterId: r.cluster, ClusterName: r.cluster, Attempt: 1, Pool: pool, Slot: slot,
			Fqdn: slot + ".provisionr.internal", Os: w.GetOs(), Hardware: w.GetHardware(), Image: w.GetImage(),
			Placement: w.GetPlacement(), Spot: w.GetSpot(), Choice: r.resolve(t, p, w)[0],
			Network: r.Network.GetMetadata().GetName(), Gateway: spec.GetGateway(), DnsServers: spec.GetDnsServers(), HttpProxy: spec.GetHttpProxy(),
			Labels: map[string]string{"team": "suite"},
		},
		UserData: []byte("#cloud-config\n{}\n"),
	}
	if r.Network.GetSpec().GetManaged() {
		request.Request.Address, request.Request.PrefixLength = r.address(t, spec)
	}
	if r.Prepare != nil {
		r.Prepare(&request)
	}
	r.removeAtEnd(t, p, request.Request.GetMachineId())
	return request
}

// removeAtEnd terminates the machine at the end of the test.
func (r *run) removeAtEnd(t *testing.T, p provider.Provider, machineID string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), r.Timeout)
		defer cancel()
		if err := p.Terminate(ctx, machineID, ""); err != nil {
			t.Errorf("Terminate at the end: %v", err)
		}
	})
}

// instances lists all instances that are not gone.
func (r *run) instances(t *testing.T, p provider.Provider) []provider.Instance {
	t.Helper()
	var all []provider.Instance
	for i, err := range p.List(t.Context()) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if i.MachineID == "" {
			t.Fatalf("List yielded an instance without a machine id: %+v", i)
		}
		if i.State != provider.Gone {
			all = append(all, i)
		}
	}
	return all
}

// list is instances by machine id, of which there are no duplicates.
func (r *run) list(t *testing.T, p provider.Provider) map[string]provider.Instance {
	t.Helper()
	all := map[string]provider.Instance{}
	for _, i := range r.instances(t, p) {
		if before, twice := all[i.MachineID]; twice {
			t.Fatalf("machine %s exists twice: %v and %v", i.MachineID, before, i)
		}
		all[i.MachineID] = i
	}
	return all
}

// poll bounds the time between two lists.
const poll = 200 * time.Millisecond

// eventually polls, ever slower, until done; the lag of lists is the provider's own.
func (r *run) eventually(t *testing.T, what string, done func() (ok bool, found any)) {
	t.Helper()
	deadline, wait := time.Now().Add(r.Timeout), 2*time.Millisecond
	for {
		ok, found := done()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing within %s showed that %s; the last was: %v", r.Timeout, what, found)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(wait):
		}
		wait = min(2*wait, poll)
	}
}

func (r *run) until(t *testing.T, p provider.Provider, what string, done func(map[string]provider.Instance) bool) {
	t.Helper()
	r.eventually(t, what, func() (bool, any) {
		all := r.list(t, p)
		return done(all), all
	})
}

// only waits until a list has exactly these machines.
func (r *run) only(t *testing.T, p provider.Provider, instances ...provider.Instance) {
	t.Helper()
	r.until(t, p, fmt.Sprintf("there is just %v", instances), func(all map[string]provider.Instance) bool {
		for _, i := range instances {
			if all[i.MachineID].ProviderID != i.ProviderID {
				return false
			}
		}
		return len(all) == len(instances)
	})
}

func (r *run) launch(t *testing.T, p provider.Provider, request provider.LaunchRequest) provider.Instance {
	t.Helper()
	i, err := p.Launch(t.Context(), clone(request))
	if err != nil {
		t.Fatalf("Launch: %v", err)
	}
	if i.MachineID != request.Request.GetMachineId() || i.ProviderID == "" {
		t.Fatalf("Launch of %s returned %+v", request.Request.GetMachineId(), i)
	}
	return i
}

// once launches a machine and terminates it after it has been listed: before, it might still turn up in a later list.
func (r *run) once(t *testing.T, p provider.Provider, request provider.LaunchRequest) {
	t.Helper()
	i := r.launch(t, p, request)
	r.only(t, p, i)
	r.terminate(t, p, i)
}

func clone(r provider.LaunchRequest) provider.LaunchRequest {
	return provider.LaunchRequest{Request: proto.CloneOf(r.Request), UserData: slices.Clone(r.UserData)}
}

func (r *run) terminate(t *testing.T, p provider.Provider, i provider.Instance) {
	t.Helper()
	if err := p.Terminate(t.Context(), i.MachineID, i.ProviderID); err != nil {
		t.Fatalf("Terminate: %v", err)
	}
	r.until(t, p, "the terminated machine is absent", func(all map[string]provider.Instance) bool {
		_, there := all[i.MachineID]
		return !there
	})
}

// wants fails the test unless err is of the kind.
func wants(t *testing.T, what string, err error, kind provider.Kind) bool {
	t.Helper()
	if err == nil || provider.KindOf(err) != kind {
		t.Errorf("%s: %v (%q), want %s", what, err, provider.KindOf(err), kind)
		return false
	}
	return true
}
