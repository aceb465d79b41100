package providertest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// Config of a run of the suite.
type Config struct {
	// New returns a provider for a cluster, made anew as after a restart: all of one cluster see the same machines.
	// Required.
	New func(t *testing.T, cluster string) provider.Provider
	// Network of the machines. Default: 10.88.0.0/24, managed.
	Network *provisionrv1.Network
	// Prepare completes a launch request whose machine, cluster, slot and address are set. Optional.
	Prepare func(*provider.LaunchRequest)
	// Timeout bounds how long the provider may take until a call's effect shows in a list. Default: 60s.
	Timeout time.Duration
}

// run is one run with a cluster of its own, so that runs beside each other or after a failure do not meet.
type run struct {
	Config
	cluster string
	made    int
}

// Run checks the contract of provider.Provider. It launches four machines at most at a time and leaves none.
func Run(t *testing.T, c Config) {
	if c.Network == nil {
		c.Network = &provisionrv1.Network{
			Metadata: &provisionrv1.Metadata{Name: "local", Generation: 1},
			Spec:     &provisionrv1.NetworkSpec{Cidr: "10.88.0.0/24", Provider: "local", Managed: true},
		}
	}
	c.Timeout = cmp.Or(c.Timeout, time.Minute)
	r := &run{Config: c, cluster: "t" + random(7)}
	for _, test := range []struct {
		name string
		f    func(*testing.T, provider.Provider)
	}{
		{"Capabilities", r.capabilities},
		{"Network", r.network},
		{"AbsentIsSuccess", r.absent},
		{"Cancelled", r.cancelled},
		{"UserDataLimit", r.userDataLimit},
		{"Life", r.life},
		{"ConcurrentLaunch", r.concurrent},
		{"LostResponse", r.lostResponse},
		{"TagIsolation", r.isolation},
	} {
		if !t.Run(test.name, func(t *testing.T) {
			p := c.New(t, r.cluster)
			test.f(t, p)
			if left := r.list(t, p); len(left) > 0 {
				t.Errorf("the test left machines: %v", left)
			}
		}) {
			return
		}
	}
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))[:n]
}

// request returns a new machine's request, whose machine is terminated at the end of the test whatever happens.
func (r *run) request(t *testing.T, p provider.Provider) provider.LaunchRequest {
	t.Helper()
	spec, err := p.EnsureNetwork(t.Context(), proto.CloneOf(r.Network))
	if err != nil {
		t.Fatalf("EnsureNetwork: %v", err)
	}
	r.made++
	slot := fmt.Sprintf("pt-%d", r.made)
	request := provider.LaunchRequest{
		Request: &provisionrv1.LaunchRequest{
			MachineId: "m-" + random(16), ClusterId: r.cluster, ClusterName: r.cluster, Attempt: 1, Pool: "pt", Slot: slot,
			Fqdn: slot + ".provisionr.internal", Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"},
			Network: r.Network.GetMetadata().GetName(), Gateway: spec.GetGateway(), DnsServers: spec.GetDnsServers(), HttpProxy: spec.GetHttpProxy(),
		},
		UserData: []byte("#cloud-config\n{}\n"),
	}
	if r.Network.GetSpec().GetManaged() {
		request.Request.Address, request.Request.PrefixLength = r.address(t, spec)
	}
	if r.Prepare != nil {
		r.Prepare(&request)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), r.Timeout)
		defer cancel()
		if err := p.Terminate(ctx, request.Request.GetMachineId(), ""); err != nil {
			t.Errorf("Terminate at the end: %v", err)
		}
	})
	return request
}

func (r *run) list(t *testing.T, p provider.Provider) map[string]provider.Instance {
	t.Helper()
	all := map[string]provider.Instance{}
	for i, err := range p.List(t.Context()) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if i.State == provider.Gone {
			continue
		}
		if before, twice := all[i.MachineID]; twice {
			t.Fatalf("machine %s exists twice: %v and %v", i.MachineID, before, i)
		}
		all[i.MachineID] = i
	}
	return all
}

// until polls the list, whose lag is the provider's own, until it satisfies done.
func (r *run) until(t *testing.T, p provider.Provider, what string, done func(map[string]provider.Instance) bool) {
	t.Helper()
	deadline := time.Now().Add(r.Timeout)
	for {
		all := r.list(t, p)
		if done(all) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no list within %s showed that %s; the last one: %v", r.Timeout, what, all)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (r *run) launch(t *testing.T, p provider.Provider, request provider.LaunchRequest) provider.Instance {
	t.Helper()
	i, err := p.Launch(t.Context(), request)
	if err != nil {
		t.Fatalf("Launch: %v", err)
	}
	if i.MachineID != request.Request.GetMachineId() || i.ProviderID == "" {
		t.Fatalf("Launch of %s returned %+v", request.Request.GetMachineId(), i)
	}
	return i
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

func (r *run) capabilities(t *testing.T, p provider.Provider) {
	if a, b := p.Capabilities(), p.Capabilities(); a != b || a.UserDataLimit < 8<<10 || a.SettleWindow < 0 {
		t.Errorf("capabilities %+v, then %+v", a, b)
	}
}

func (r *run) network(t *testing.T, p provider.Provider) {
	first, err := p.EnsureNetwork(t.Context(), proto.CloneOf(r.Network))
	if err != nil {
		t.Fatal(err)
	}
	if first.GetCidr() != r.Network.GetSpec().GetCidr() {
		t.Errorf("the range became %s", first.GetCidr())
	}
	completed := proto.CloneOf(r.Network)
	completed.Spec = first
	second, err := p.EnsureNetwork(t.Context(), completed)
	if err != nil || !proto.Equal(first, second) {
		t.Errorf("the second call gave %v, %v, the first %v", second, err, first)
	}
}

func (r *run) absent(t *testing.T, p provider.Provider) {
	id := "m-" + random(16)
	for range 2 {
		if err := p.Terminate(t.Context(), id, ""); err != nil {
			t.Errorf("Terminate of an absent machine: %v", err)
		}
	}
	if _, err := p.Console(t.Context(), id, ""); provider.KindOf(err) != provider.NotFound {
		t.Errorf("Console of an absent machine: %v, want not found", err)
	}
}

func (r *run) cancelled(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Launch(ctx, request); err == nil {
		t.Error("Launch with a cancelled context succeeded")
	} else if kind := provider.KindOf(err); kind != provider.Unknown {
		t.Errorf("Launch with a cancelled context is %s: nothing is known of its outcome", kind)
	}
	complete := true
	for _, err := range p.List(ctx) {
		if err != nil {
			complete = false
		}
	}
	if complete {
		t.Error("List with a cancelled context looks complete")
	}
	if err := p.Terminate(t.Context(), request.Request.GetMachineId(), ""); err != nil {
		t.Error(err)
	}
}

func (r *run) userDataLimit(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	request.UserData = append([]byte("#cloud-config\n#"), bytes.Repeat([]byte("x"), p.Capabilities().UserDataLimit)...)
	if _, err := p.Launch(t.Context(), request); provider.KindOf(err) != provider.Invalid {
		t.Errorf("Launch with too much user-data: %v, want invalid", err)
	}
}

// life is one machine from launch to end, with everything repeated and with a provider that was restarted.
func (r *run) life(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	first := r.launch(t, p, request)
	r.until(t, p, "the machine is there", func(all map[string]provider.Instance) bool {
		return all[first.MachineID].ProviderID == first.ProviderID
	})
	if again := r.launch(t, p, request); again.ProviderID != first.ProviderID {
		t.Errorf("a second launch made another machine: %v and %v", first, again)
	}
	restarted := r.New(t, r.cluster)
	if adopted := r.launch(t, restarted, request); adopted.ProviderID != first.ProviderID {
		t.Errorf("a restarted provider made another machine: %v and %v", first, adopted)
	}
	for range 3 {
		if all := r.list(t, restarted); len(all) != 1 || all[first.MachineID].ProviderID != first.ProviderID {
			t.Errorf("lists differ without a change: %v", all)
		}
	}
	if address := request.Request.GetAddress(); address != "" {
		if got := r.list(t, p)[first.MachineID].Address; got.IsValid() && got.String() != address {
			t.Errorf("the machine has address %s instead of %s", got, address)
		}
	}
	if text, err := p.Console(t.Context(), first.MachineID, first.ProviderID); err != nil || len(text) > 64<<10 {
		t.Errorf("Console: %d bytes, %v", len(text), err)
	}
	r.terminate(t, restarted, first)
	if err := p.Terminate(t.Context(), first.MachineID, first.ProviderID); err != nil {
		t.Errorf("a second Terminate: %v", err)
	}
}

func (r *run) concurrent(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	const calls = 4
	ids := make([]string, calls)
	var wait sync.WaitGroup
	for n := range calls {
		wait.Go(func() {
			i, err := p.Launch(t.Context(), request)
			if err != nil {
				t.Errorf("concurrent Launch: %v", err)
			}
			ids[n] = i.ProviderID
		})
	}
	wait.Wait()
	if len(slices.Compact(slices.Clone(ids))) != 1 || len(r.list(t, p)) != 1 {
		t.Errorf("concurrent launches made %v, listed %v", ids, r.list(t, p))
	}
	r.terminate(t, p, provider.Instance{MachineID: request.Request.GetMachineId(), ProviderID: ids[0]})
}

// lostResponse cuts a launch off while it is at work: whatever it did, the next call must end in one machine.
func (r *run) lostResponse(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _ = p.Launch(ctx, request)
	second := r.launch(t, p, request)
	r.until(t, p, "there is one machine", func(all map[string]provider.Instance) bool {
		return len(all) == 1 && all[second.MachineID].ProviderID == second.ProviderID
	})
	r.terminate(t, p, second)
}

func (r *run) isolation(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	mine := r.launch(t, p, request)
	other := r.New(t, r.cluster+"x")
	if all := r.list(t, other); len(all) != 0 {
		t.Errorf("another cluster sees %v", all)
	}
	if err := other.Terminate(t.Context(), mine.MachineID, mine.ProviderID); err != nil {
		t.Errorf("Terminate by another cluster: %v, want success as for an absent machine", err)
	}
	if all := r.list(t, p); len(all) != 1 {
		t.Errorf("another cluster terminated the machine: %v", all)
	}
	r.terminate(t, p, mine)
}
