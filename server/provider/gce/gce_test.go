package gce_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/api/compute/v1"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/gce"
	"github.com/provisionr/provisionr/server/provider/gce/gcetest"
)

const cluster = "c1"

// start serves within a bubble, where operations take as long as real ones.
func start(t *testing.T, c gcetest.Config) (*gcetest.Server, *gce.Provider) {
	t.Helper()
	c.Pipe, c.Pending, c.Running = true, time.Second, 10*time.Second
	s := gcetest.Start(t, c)
	return s, newProvider(t, s, gce.Config{})
}

func newProvider(t *testing.T, s *gcetest.Server, c gce.Config) *gce.Provider {
	t.Helper()
	c.ClusterID, c.HTTP = cluster, s.Client
	if c.Spec == nil {
		c.Spec = &provisionrv1.GceProvider{Project: "test-project", Region: gcetest.Region, Unauthenticated: true, Compute: &provisionrv1.Endpoint{Url: s.URL}}
	}
	p, err := gce.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wish(change ...func(*provisionrv1.Wish)) *provisionrv1.Wish {
	w := &provisionrv1.Wish{ClusterId: cluster, Pool: "web", Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}, Count: 1}
	for _, f := range change {
		f(w)
	}
	return w
}

// request is a launch of what the wish comes to.
func request(t *testing.T, p *gce.Provider, machine string, w *provisionrv1.Wish) provider.LaunchRequest {
	t.Helper()
	offer, err := p.Resolve(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return provider.LaunchRequest{UserData: []byte("#cloud-config\n{}\n"), Request: &provisionrv1.LaunchRequest{
		MachineId: machine, ClusterId: cluster, ClusterName: "one", Attempt: 1, Pool: "web", Slot: "web-1", Fqdn: "web-1.provisionr.internal",
		Hardware: w.GetHardware(), Placement: w.GetPlacement(), Spot: w.GetSpot(), Choice: offer.Choices[0], Labels: map[string]string{"Team": "Data Eng", "provisionr-cluster": "other"},
	}}
}

func list(t *testing.T, p *gce.Provider) (all []provider.Instance) {
	t.Helper()
	for i, err := range p.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	return all
}

// bubble runs a test in a bubble, whose goroutines all end with it.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// faults that may befall any call.
var faults = []gcetest.Fault{
	{DropBefore: true}, {Drop: true}, {Truncate: true}, {Before: &gcetest.Answer{Status: 503}}, {After: &gcetest.Answer{Status: 502}},
	{Before: gcetest.Throttled(time.Second)}, {After: gcetest.Throttled(0)}, {After: &gcetest.Answer{Status: 429, Reason: "rateLimitExceeded"}},
	{Delay: 40 * time.Second}, {Stale: time.Minute}, {Before: &gcetest.Answer{Status: 500, Reason: "internalError"}},
}

// TestFaults launches and terminates under faults, as reconcile does: an attempt is repeated until its outcome is known, the
// next one is made only after a refusal, and each call may be by a provider that was made anew.
func TestFaults(t *testing.T) {
	model, err := gcetest.LoadModel()
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) { faulty(t, model, &dice{Rand: rand.New(rand.NewPCG(seed, 1))}) })
		})
	}
}

// dice may be thrown by many goroutines: calls that were given up still reach the server.
type dice struct {
	mu sync.Mutex
	*rand.Rand
}

func (d *dice) IntN(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Rand.IntN(n)
}

func faulty(t *testing.T, model *gcetest.Model, random *dice) {
	s, p := start(t, gcetest.Config{Model: model, Lag: 3 * time.Second})
	r := request(t, p, "m-0123456789abcdef", wish())
	offer, err := p.Resolve(t.Context(), wish())
	if err != nil {
		t.Fatal(err)
	}
	if random.IntN(2) == 0 {
		s.SetCapacity(zoneA, 0)
	}
	s.SetFault(func(gcetest.Call) gcetest.Fault {
		if random.IntN(3) > 0 {
			return gcetest.Fault{}
		}
		return faults[random.IntN(len(faults))]
	})
	call := func(f func(ctx context.Context, p *gce.Provider) error) error {
		t.Helper()
		for range 200 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.IntN(60))*time.Second)
			err := f(ctx, newProvider(t, s, gce.Config{}))
			cancel()
			switch provider.KindOf(err) {
			case "", provider.NoCapacity:
				return err
			case provider.Unknown, provider.RateLimited:
				time.Sleep(max(time.Second, provider.AfterOf(err)))
			default:
				t.Fatalf("%s: %v", provider.KindOf(err), err)
			}
		}
		t.Fatal("no outcome after 200 calls")
		return nil
	}
	launch := func() error {
		return call(func(ctx context.Context, p *gce.Provider) error { _, err := p.Launch(ctx, r); return err })
	}
	for n := 0; launch() != nil; {
		if all := s.Instances(); len(all) > 0 {
			t.Fatalf("a refused launch made %d instances", len(all))
		}
		n++
		r.Request = proto.CloneOf(r.Request)
		r.Request.Attempt, r.Request.Choice = r.Request.Attempt+1, offer.Choices[n]
	}
	if all := s.Instances(); len(all) != 1 {
		t.Fatalf("%d instances", len(all))
	}
	_ = launch()
	if all := s.Instances(); len(all) != 1 {
		t.Fatalf("%d instances after a late launch", len(all))
	}
	id := []string{"", r.Request.Choice.Zone + "/pv-0123456789abcdef"}[random.IntN(2)]
	_ = call(func(ctx context.Context, p *gce.Provider) error { return p.Terminate(ctx, r.Request.MachineId, id) })
	s.SetFault(nil)
	time.Sleep(time.Minute)
	if all, left := s.Instances(), s.Disks(); len(all) != 0 || len(left) != 0 {
		t.Fatalf("%d instances and %d disks are left", len(all), len(left))
	}
	if i, err := newProvider(t, s, gce.Config{}).Launch(t.Context(), r); err == nil && i.State != provider.Gone {
		t.Errorf("a launch after the end returned %v", i)
	}
	if all := s.Instances(); len(all) != 0 {
		t.Errorf("a launch after the end made an instance")
	}
}

// TestChangedChoice: the next attempt takes another zone, and a leader that has missed it repeats the refused one.
func TestChangedChoice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := start(t, gcetest.Config{})
		s.SetCapacity(zoneA, 0)
		first := request(t, p, "m-0123456789abcdef", wish())
		if _, err := p.Launch(t.Context(), first); provider.KindOf(err) != provider.NoCapacity || !strings.Contains(err.Error(), "ZONE_RESOURCE_POOL_EXHAUSTED") {
			t.Fatalf("without capacity: %v", err)
		}
		second := provider.LaunchRequest{Request: proto.CloneOf(first.Request), UserData: first.UserData}
		second.Request.Attempt, second.Request.Choice.Zone = 2, gcetest.Region+"-b"
		i, err := p.Launch(t.Context(), second)
		if err != nil || i.ProviderID != gcetest.Region+"-b/pv-0123456789abcdef" || i.State != provider.Running || !i.Address.IsValid() {
			t.Fatalf("the second attempt: %+v, %v", i, err)
		}
		s.SetCapacity(zoneA, -1)
		if _, err := p.Launch(t.Context(), first); provider.KindOf(err) != provider.NoCapacity {
			t.Errorf("the first attempt again: %v", err)
		}
		if len(s.Instances()) != 1 {
			t.Errorf("%d instances", len(s.Instances()))
		}
		// The same attempt with another choice is a mistake of the caller's, which the API refuses.
		second.Request.Choice.Type = "n2-standard-2"
		if _, err := p.Launch(t.Context(), first); err == nil {
			t.Error("the first attempt succeeded late")
		}
	})
}

func TestSpotIsPreempted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := start(t, gcetest.Config{})
		w := wish(func(w *provisionrv1.Wish) { w.Spot = &provisionrv1.Spot{Fallback: true, MaxPrice: "0.01"} })
		offer, err := p.Resolve(t.Context(), w)
		if err != nil || len(offer.Warnings) != 1 || !strings.Contains(offer.Warnings[0], "max_price") {
			t.Errorf("a maximum price: %v, %v", offer.GetWarnings(), err)
		}
		if _, err := p.Launch(t.Context(), request(t, p, "m-spot", w)); err != nil {
			t.Fatal(err)
		}
		sent := s.Requested("pv-spot")[0].Scheduling
		if sent.ProvisioningModel != "SPOT" || sent.InstanceTerminationAction != "DELETE" || *sent.AutomaticRestart {
			t.Errorf("scheduling %+v", sent)
		}
		if i := list(t, p)[0]; i.Notice != nil || i.State != provider.Running {
			t.Errorf("before: %v", i)
		}
		s.Preempt("pv-spot")
		if i := list(t, p)[0]; i.Notice.GetKind() != "spot" || i.State != provider.Running {
			t.Errorf("in between: %v", i)
		}
		time.Sleep(31 * time.Second)
		if all := list(t, p); len(all) != 0 || len(s.Disks()) != 0 {
			t.Errorf("after: %v, %d disks", all, len(s.Disks()))
		}
	})
}

func TestMaintenanceIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := start(t, gcetest.Config{})
		if _, err := p.Launch(t.Context(), request(t, p, "m-old", wish())); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(24 * time.Hour).Truncate(time.Second)
		s.Change("pv-old", func(i *compute.Instance) {
			i.ResourceStatus = &compute.ResourceStatus{UpcomingMaintenance: &compute.UpcomingMaintenance{
				Type: "SCHEDULED", MaintenanceStatus: "PENDING", WindowStartTime: at.Format(time.RFC3339), WindowEndTime: at.Add(time.Hour).Format(time.RFC3339),
			}}
		})
		if n := list(t, p)[0].Notice; n.GetKind() != "maintenance" || !n.GetAt().AsTime().Equal(at) || !strings.Contains(n.GetMessage(), "scheduled") {
			t.Errorf("notice %v", n)
		}
		s.Change("pv-old", func(i *compute.Instance) { i.Status, i.ResourceStatus = "TERMINATED", nil })
		if i := list(t, p)[0]; i.State != provider.Stopped || i.Notice != nil {
			t.Errorf("a stopped instance: %v", i)
		}
	})
}

func TestPartialListIsUnknown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := start(t, gcetest.Config{})
		if _, err := p.Launch(t.Context(), request(t, p, "m-1", wish())); err != nil {
			t.Fatal(err)
		}
		s.SetUnreachable(gcetest.Region + "-b")
		var last error
		for _, err := range p.List(t.Context()) {
			last = err
		}
		if provider.KindOf(last) != provider.Unknown {
			t.Errorf("a list without a zone: %v", last)
		}
		if err := p.Terminate(t.Context(), "m-2", ""); provider.KindOf(err) != provider.Unknown {
			t.Errorf("Terminate of what may be in a zone that is unreachable: %v", err)
		}
		// Nothing of this region is hidden by another one's fault.
		s.SetUnreachable(gcetest.OtherRegion + "-a")
		if all := list(t, p); len(all) != 1 {
			t.Errorf("listed %v", all)
		}
	})
}

// TestOtherRegion: two providers of one cluster in one project have nothing to do with each other.
func TestOtherRegion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := start(t, gcetest.Config{})
		if _, err := p.Launch(t.Context(), request(t, p, "m-1", wish())); err != nil {
			t.Fatal(err)
		}
		if err := p.EnsureFirewall(t.Context(), provider.Firewall{ClusterID: cluster, Pool: "web"}); err != nil {
			t.Fatal(err)
		}
		other := newProvider(t, s, gce.Config{Spec: &provisionrv1.GceProvider{
			Project: "test-project", Region: gcetest.OtherRegion, Unauthenticated: true, Compute: &provisionrv1.Endpoint{Url: s.URL},
		}})
		pools, err := other.Firewalls(t.Context())
		if all := list(t, other); len(all) != 0 || err != nil || len(pools) != 0 {
			t.Errorf("the other region has machines %v and groups %v, %v", all, pools, err)
		}
		if err := other.Terminate(t.Context(), "m-1", ""); err != nil || len(s.Instances()) != 1 {
			t.Errorf("Terminate in the other region: %v", err)
		}
	})
}

func TestKeptDiskIsNoLeftover(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := start(t, gcetest.Config{})
		w := wish(func(w *provisionrv1.Wish) {
			w.Hardware = &provisionrv1.Hardware{DiskGib: 20, RootDisk: &provisionrv1.Disk{Type: "pd-ssd"}, Disks: []*provisionrv1.Disk{
				{SizeGib: 50, Type: "hyperdisk-balanced", Iops: 4000, ThroughputMibps: 200, Keep: true, Encrypted: true}, {SizeGib: 10},
			}}
		})
		if _, err := p.Launch(t.Context(), request(t, p, "m-1", w)); err != nil {
			t.Fatal(err)
		}
		sent := s.Requested("pv-1")[0].Disks
		if sent[0].InitializeParams.DiskSizeGb != 20 || sent[1].InitializeParams.ProvisionedIops != 4000 || sent[1].AutoDelete || !sent[2].AutoDelete {
			t.Errorf("disks %+v", sent)
		}
		if err := p.Terminate(t.Context(), "m-1", ""); err != nil {
			t.Fatal(err)
		}
		if left := s.Disks(); len(left) != 1 || left[0].Name != "pv-1-1" || left[0].Labels["provisionr-kept-of"] != "m-1" {
			t.Errorf("left are %v", left)
		}
		time.Sleep(time.Hour)
		if all := list(t, p); len(all) != 0 {
			t.Errorf("the kept disk is listed: %v", all)
		}
	})
}

func TestConsoleIsTheTail(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, p := start(t, gcetest.Config{})
		if _, err := p.Launch(t.Context(), request(t, p, "m-1", wish())); err != nil {
			t.Fatal(err)
		}
		s.Write("pv-1", strings.Repeat("é", 1<<20)+"the end\n")
		for _, id := range []string{"", zoneA + "/pv-1"} {
			text, err := p.Console(t.Context(), "m-1", id)
			if err != nil || len(text) > 64<<10 || len(text) < 60<<10 || !strings.HasSuffix(text, "éthe end\n") {
				t.Errorf("%d bytes, %v", len(text), err)
			}
		}
	})
}
