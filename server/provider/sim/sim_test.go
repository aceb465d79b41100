package sim_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/providertest"
	"github.com/provisionr/provisionr/server/provider/sim"
)

func newSim(t *testing.T, c sim.Config) *sim.Provider {
	t.Helper()
	c.ClusterID = "c"
	p, err := sim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func launchOf(n int, choice *provisionrv1.Choice) provider.LaunchRequest {
	return provider.LaunchRequest{Request: &provisionrv1.LaunchRequest{
		MachineId: fmt.Sprintf("m-%03d", n), ClusterId: "c", Attempt: 1, Pool: "web", Choice: choice,
	}}
}

func count(t *testing.T, p provider.Provider) (n int) {
	t.Helper()
	for _, err := range p.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestConforms runs the suite on a cloud as New makes it, with buckets a hundred times as large, and machines that live.
func TestConforms(t *testing.T) {
	limits := sim.EC2Limits()
	for op, b := range limits {
		limits[op] = provider.Bucket{Size: 100 * b.Size, Rate: 100 * b.Rate}
	}
	p, err := sim.New(sim.Config{ClusterID: "any", Limits: limits, Spec: &provisionrv1.SimProvider{
		Latency: durationpb.New(2 * time.Millisecond), Boot: durationpb.New(time.Millisecond), Consistency: durationpb.New(20 * time.Millisecond),
	}, Boot: func(ctx context.Context, _ sim.Machine) error {
		<-ctx.Done()
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Cloud().Close)
	const none = "a simulated cloud has no credentials"
	providertest.Run(t, providertest.Config{
		New:   func(_ *testing.T, cluster string) provider.Provider { return p.Cloud().Provider(cluster) },
		Typos: providertest.SimTypos(), Cloud: providertest.SimControls(p.Cloud()),
		Without: map[providertest.Case]string{providertest.MissingCredentials: none, providertest.RefusedCredentials: none},
	})
}

// TestLimits: a provider that keeps the buckets is never refused, whoever calls at once; one that does not is.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSim(t, sim.Config{})
		began := time.Now()
		const machines = 25
		var wait sync.WaitGroup
		for n := range machines {
			wait.Go(func() {
				if _, err := p.Launch(t.Context(), launchOf(n, nil)); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		least := sim.LaunchMinimum(machines, sim.EC2Limits()["launch"])
		if took := time.Since(began); least != 10*time.Second || took < least || took > least+time.Second {
			t.Errorf("%d launches took %s; the buckets allow %s", machines, took, least)
		}

		// Another process has a limiter of its own, with full buckets.
		careless := &sim.Cloud{Limits: map[string]provider.Bucket{"launch": {Size: 1, Rate: 0.1}}}
		hasty := careless.Provider("c")
		careless.Limits = map[string]provider.Bucket{"launch": {Size: 1, Rate: 0.01}}
		if _, err := hasty.Launch(t.Context(), launchOf(0, nil)); err != nil {
			t.Fatal(err)
		}
		_, err := hasty.Launch(t.Context(), launchOf(1, nil))
		if provider.KindOf(err) != provider.RateLimited || provider.AfterOf(err) < 80*time.Second {
			t.Errorf("a call too many: %v, wait %s", err, provider.AfterOf(err))
		}
	})
}

func TestListsLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &sim.Cloud{Lag: 10 * time.Second}
		p := cloud.Provider("c")
		for n := range 20 {
			if _, err := p.Launch(t.Context(), launchOf(n, nil)); err != nil {
				t.Fatal(err)
			}
		}
		early := count(t, p)
		time.Sleep(10 * time.Second)
		if late := count(t, p); early >= 20 || late != 20 {
			t.Errorf("%d machines are listed at once, %d at last", early, late)
		}
		if err := p.Terminate(t.Context(), "m-000", ""); err != nil {
			t.Fatal(err)
		}
		early = count(t, p)
		time.Sleep(10 * time.Second)
		if late := count(t, p); early != 20 || late != 19 || len(cloud.Instances()) != 19 {
			t.Errorf("after a termination %d machines are listed at once, %d at last", early, late)
		}
	})
}

// TestFaultsRepeat: the same seed breaks the same calls, in whatever order they come.
func TestFaultsRepeat(t *testing.T) {
	outcomes := func(seed uint64, order []int) map[int]string {
		cloud := &sim.Cloud{Seed: seed, FaultRate: 0.5}
		p, out := cloud.Provider("c"), map[int]string{}
		for _, n := range order {
			_, err := p.Launch(t.Context(), launchOf(n, nil))
			out[n] = fmt.Sprintf("%v, launched %d", err, cloud.Launched(launchOf(n, nil).Request.MachineId))
		}
		return out
	}
	var order []int
	for n := range 40 {
		order = append(order, n)
	}
	first := outcomes(7, order)
	slices.Reverse(order)
	if diff := cmp.Diff(first, outcomes(7, order)); diff != "" {
		t.Errorf("the same seed, another order:\n%s", diff)
	}
	if cmp.Equal(first, outcomes(8, order)) {
		t.Error("another seed makes no difference")
	}
	kinds := map[string]int{}
	for _, o := range first {
		kinds[o]++
	}
	if len(kinds) != 3 {
		t.Errorf("calls do not fail before, after and not at all: %v", kinds)
	}
}

func TestRoomByZoneAndType(t *testing.T) {
	cloud := &sim.Cloud{}
	p := cloud.Provider("c")
	offer, err := p.Resolve(t.Context(), &provisionrv1.Wish{
		Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"}, Hardware: &provisionrv1.Hardware{Types: []string{"s1.large"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cloud.SetCapacity("sim-a", "s1.large", 1)
	cloud.SetCapacity("sim-b", "", 0)
	refused := 0
	for n, choice := range []*provisionrv1.Choice{offer.Choices[0], offer.Choices[0], offer.Choices[1], offer.Choices[2]} {
		if _, err := p.Launch(t.Context(), launchOf(n, choice)); err != nil {
			refused++
			if provider.KindOf(err) != provider.NoCapacity {
				t.Error(err)
			}
		}
	}
	if refused != 2 || len(cloud.Instances()) != 2 {
		t.Errorf("%d launches were refused", refused)
	}
}

func TestSpot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lives, halted atomic.Int32
		cloud := &sim.Cloud{ReclaimPerHour: 1, Boot: func(ctx context.Context, _ sim.Machine) error {
			lives.Add(1)
			<-ctx.Done()
			halted.Add(1)
			return nil
		}}
		p := cloud.Provider("c")
		choice := &provisionrv1.Choice{Type: "s1.small", Zone: "sim-a", Spot: true, MaxPrice: "0.001"}
		if _, err := p.Launch(t.Context(), launchOf(0, choice)); provider.KindOf(err) != provider.NoCapacity {
			t.Errorf("a price below the market's: %v", err)
		}
		choice.MaxPrice = "0.024"
		const machines = 10
		for n := range machines {
			if _, err := p.Launch(t.Context(), launchOf(n, choice)); err != nil {
				t.Fatal(err)
			}
		}
		noticed := map[string]time.Time{}
		for count(t, p) > 0 {
			for i, err := range p.List(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				if i.Notice != nil {
					noticed[i.MachineID] = i.Notice.At.AsTime()
				}
			}
			time.Sleep(30 * time.Second)
		}
		synctest.Wait()
		if len(noticed) != machines || lives.Load() != machines || halted.Load() != machines {
			t.Errorf("of %d machines %d had a notice, %d lived, %d halted", machines, len(noticed), lives.Load(), halted.Load())
		}
		if _, err := p.Launch(t.Context(), launchOf(1, choice)); err == nil {
			t.Error("a machine that was taken back was launched again")
		}
		now := time.Now()
		spot, later := cloud.Price("sim-a", "s1.small", true, now), cloud.Price("sim-a", "s1.small", true, now.Add(time.Hour))
		if demand := cloud.Price("sim-a", "s1.small", false, now); spot <= 0 || spot >= demand/2 || spot == later {
			t.Errorf("prices: spot %f, later %f, on demand %f", spot, later, demand)
		}
	})
}

// TestLife follows machines from boot to halt: one by itself, one by a termination, one with the cloud.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		died := errors.New("kernel panic")
		booted := map[string]time.Duration{}
		began := time.Now()
		var mu sync.Mutex
		p := newSim(t, sim.Config{Spec: &provisionrv1.SimProvider{Boot: durationpb.New(5 * time.Second)}, Boot: func(ctx context.Context, m sim.Machine) error {
			mu.Lock()
			booted[m.Request.GetMachineId()] = time.Since(began).Round(time.Second)
			mu.Unlock()
			if !m.Address.IsValid() || string(m.UserData) != "seed" {
				t.Errorf("a machine got address %s and user-data %q", m.Address, m.UserData)
			}
			if m.Request.GetMachineId() == "m-000" {
				return died
			}
			<-ctx.Done()
			return nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		for n := range 3 {
			request := launchOf(n, nil)
			request.UserData = []byte("seed")
			if _, err := p.Launch(t.Context(), request); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		if err := p.Terminate(t.Context(), "m-001", ""); err != nil {
			t.Fatal(err)
		}
		text, err := p.Console(t.Context(), "m-000", "")
		mu.Lock()
		defer mu.Unlock()
		if err != nil || len(booted) != 3 || booted["m-000"] != 5*time.Second {
			t.Errorf("booted %v, console %v", booted, err)
		}
		if want := "booting m-000\nthe machine halted: kernel panic\n"; text != want {
			t.Errorf("console %q", text)
		}
		for i, err := range p.List(t.Context()) {
			if err != nil || i.MachineID == "m-000" && i.State != provider.Stopped || i.MachineID == "m-002" && i.State != provider.Running {
				t.Errorf("%v: %v", i, err)
			}
		}
		cancel()
		running.Wait()
		if _, err := p.Launch(t.Context(), launchOf(9, nil)); err == nil {
			t.Error("a closed cloud launches")
		}
	})
}

// TestEverythingBreaks: whoever repeats what failed gets one machine each in the end, and none.
func TestEverythingBreaks(t *testing.T) {
	cloud := &sim.Cloud{Seed: 3, FaultRate: 0.6}
	p := cloud.Provider("c")
	again := func(f func() error) {
		for f() != nil {
		}
	}
	for n := range 50 {
		again(func() error {
			_, err := p.Launch(t.Context(), launchOf(n, nil))
			return err
		})
		if cloud.Launched(launchOf(n, nil).Request.MachineId) != 1 {
			t.Errorf("machine %d was launched twice", n)
		}
	}
	for n := range 50 {
		again(func() error { return p.Terminate(t.Context(), launchOf(n, nil).Request.MachineId, "") })
	}
	if left := cloud.Instances(); len(left) > 0 {
		t.Errorf("%d machines are left", len(left))
	}
}
