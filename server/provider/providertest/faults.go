package providertest

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
	"github.com/provisionr/provisionr/server/provider"
)

// maxCalls bounds the calls of the API for one call of the provider.
const maxCalls = 100

// lostLaunch: the launch has acted and nobody knows.
func (r *run) lostLaunch(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	r.Cloud.LoseResponse(t, LaunchOp)
	_, err := p.Launch(t.Context(), clone(request))
	wants(t, "a launch without a response", err, provider.Unknown)
	i := r.launch(t, r.New(t, r.cluster), request)
	r.only(t, p, i)
	r.terminate(t, p, i)

	// Given up instead: the end finds what nobody has an id of.
	request = r.request(t, p)
	r.Cloud.LoseResponse(t, LaunchOp)
	_, err = p.Launch(t.Context(), clone(request))
	wants(t, "a launch without a response", err, provider.Unknown)
	r.until(t, p, "the machine is there all the same", func(all map[string]provider.Instance) bool { return len(all) == 1 })
	r.terminate(t, p, provider.Instance{MachineID: request.Request.GetMachineId()})
}

func (r *run) lostTerminate(t *testing.T, p provider.Provider) {
	i := r.launch(t, p, r.request(t, p))
	r.only(t, p, i)
	r.Cloud.LoseResponse(t, TerminateOp)
	wants(t, "a termination without a response", p.Terminate(t.Context(), i.MachineID, i.ProviderID), provider.Unknown)
	r.terminate(t, r.New(t, r.cluster), i)
}

// cancelAtEachCall cancels launches at the begin of their first, second, third ... call.
func (r *run) cancelAtEachCall(t *testing.T, p provider.Provider) {
	for n := range int64(maxCalls) {
		request := r.request(t, p)
		ctx, cancel := context.WithCancel(t.Context())
		var calls atomic.Int64
		stop := r.Cloud.Watch(t, func() {
			if calls.Add(1) > n {
				cancel()
			}
		})
		_, err := p.Launch(ctx, clone(request))
		stop()
		untouched := ctx.Err() == nil
		cancel()
		if err != nil {
			wants(t, "a cancelled launch", err, provider.Unknown)
		}
		i := r.launch(t, r.New(t, r.cluster), request)
		r.only(t, p, i)
		r.terminate(t, p, i)
		switch {
		case untouched && n == 0:
			t.Fatal("a launch made no call")
		case untouched:
			return
		}
	}
	t.Errorf("a launch makes more than %d calls", maxCalls)
}

// failAtEachCall has the first, second, third ... call of a launch and of a termination fail.
func (r *run) failAtEachCall(t *testing.T, p provider.Provider) {
	launched := false
	for n := 0; n < maxCalls && !launched; n++ {
		request := r.request(t, p)
		r.Cloud.Fail(t, n, 1)
		_, err := p.Launch(t.Context(), clone(request))
		r.Cloud.Fail(t, 0, 0)
		if launched = err == nil; !launched {
			wants(t, "a launch with a server error", err, provider.Unknown)
		}
		i := r.launch(t, r.New(t, r.cluster), request)
		r.only(t, p, i)
		r.terminate(t, p, i)
	}
	terminated := false
	for n := 0; n < maxCalls && !terminated; n++ {
		i := r.launch(t, p, r.request(t, p))
		r.only(t, p, i)
		r.Cloud.Fail(t, n, 1)
		err := p.Terminate(t.Context(), i.MachineID, i.ProviderID)
		r.Cloud.Fail(t, 0, 0)
		if terminated = err == nil; !terminated {
			wants(t, "a termination with a server error", err, provider.Unknown)
		}
		r.terminate(t, r.New(t, r.cluster), i)
	}
	if !launched || !terminated {
		t.Errorf("a launch or a termination makes more than %d calls", maxCalls)
	}
}

// partialBatch launches five machines at once where there is room for three.
func (r *run) partialBatch(t *testing.T, p provider.Provider) {
	const machines, room = 5, 3
	var requests [machines]provider.LaunchRequest
	for n := range requests {
		requests[n] = r.request(t, p)
	}
	r.Cloud.Capacity(t, room)
	var made [machines]provider.Instance
	var errs [machines]error
	var wait sync.WaitGroup
	for n, request := range requests {
		wait.Go(func() { made[n], errs[n] = p.Launch(t.Context(), clone(request)) })
	}
	wait.Wait()
	var there []provider.Instance
	var refused []provider.LaunchRequest
	for n, err := range errs {
		if err == nil {
			there = append(there, made[n])
		} else {
			refused = append(refused, requests[n])
			wants(t, "a launch without capacity", err, provider.NoCapacity)
		}
	}
	if len(there) != room {
		t.Errorf("%d machines where there is room for %d", len(there), room)
	}
	r.only(t, p, there...)
	// Whoever was refused tries again where there is room: that is another attempt.
	r.Cloud.Capacity(t, machines)
	for _, request := range refused {
		request.Request.Attempt++
		there = append(there, r.launch(t, p, request))
	}
	r.only(t, p, there...)
	for _, i := range there {
		r.terminate(t, p, i)
	}
}

func (r *run) quotaTyped(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	r.Cloud.Quota(t, 0)
	_, err := p.Launch(t.Context(), clone(request))
	wants(t, "a launch beyond the quota", err, provider.QuotaExceeded)
	if all := r.list(t, p); len(all) != 0 {
		t.Errorf("a refused launch left %v", all)
	}
	r.Cloud.Quota(t, 5)
	request.Request.Attempt++
	i := r.launch(t, p, request)
	r.only(t, p, i)
	r.terminate(t, p, i)
}

// quiet is how long the suite waits for calls that must not come.
const quiet = 150 * time.Millisecond

// throttling: a refused call is followed by none for as long as was asked, whoever wants to call.
func (r *run) throttling(t *testing.T, p provider.Provider) {
	request := r.request(t, p)
	r.Cloud.Throttle(t, 1, 2*quiet)
	_, err := p.Launch(t.Context(), clone(request))
	before := r.Cloud.Calls()
	if !wants(t, "a launch that is throttled", err, provider.RateLimited) {
		return
	}
	after := provider.AfterOf(err)
	if after <= 0 || after > time.Minute {
		t.Errorf("a throttled call asks to wait %s", after)
	}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for _, err := range p.List(t.Context()) {
				if err != nil {
					t.Errorf("List after a throttled call: %v", err)
				}
			}
		})
	}
	select {
	case <-time.After(min(after*3/4, quiet)):
	case <-t.Context().Done():
	}
	if calls := r.Cloud.Calls() - before; calls > 0 {
		t.Errorf("%d calls came while the provider had asked for none", calls)
	}
	wait.Wait()
	i := r.launch(t, p, request)
	r.only(t, p, i)
	r.terminate(t, p, i)
}

// noCallUnlimited compares what the cloud saw with what the limiter let through.
func (r *run) noCallUnlimited(t *testing.T, p provider.Provider) {
	for _, call := range []struct {
		name string
		f    func()
	}{
		{"EnsureNetwork", func() { r.networkOf(t, p) }},
		{"EnsureFirewall", func() {
			if groups, ok := p.(provider.FirewallGroups); ok {
				r.ensure(t, groups, r.firewall(t, p, pool, ruleOf("tcp", 22, "0.0.0.0/0")))
			}
		}},
		{"Resolve", func() { r.resolve(t, p, r.wish(t, p, 1)) }},
		{"Launch, Console, Prune, Terminate", func() {
			i := r.launch(t, p, r.request(t, p))
			r.only(t, p, i)
			if _, err := p.Console(t.Context(), i.MachineID, i.ProviderID); err != nil {
				t.Error(err)
			}
			if err := p.Prune(t.Context(), i.MachineID, i.ProviderID); err != nil {
				t.Error(err)
			}
			r.terminate(t, p, i)
		}},
		{"DeleteFirewall", func() {
			if groups, ok := p.(provider.FirewallGroups); ok {
				r.deleteGroup(t, groups, pool)
			}
		}},
	} {
		seen, limited := r.Cloud.Calls(), r.Cloud.Limited(p)
		call.f()
		seen, limited = r.Cloud.Calls()-seen, r.Cloud.Limited(p)-limited
		if seen > limited {
			t.Errorf("%s: the cloud got %d calls, of which %d waited for the limiter", call.name, seen, limited)
		}
	}
	if r.Cloud.Limited(p) == 0 {
		t.Error("the limiter was not asked at all")
	}
}

func (r *run) missingCredentials(t *testing.T, _ provider.Provider) {
	r.unauthorized(t, r.Cloud.NoCredentials(t, r.cluster))
}

func (r *run) refusedCredentials(t *testing.T, _ provider.Provider) {
	r.unauthorized(t, r.Cloud.WrongCredentials(t, r.cluster))
}

// unauthorized: each call says in one line which provider it is and what to do, and no secret.
func (r *run) unauthorized(t *testing.T, p provider.Provider) {
	check := func(what string, err error) {
		t.Helper()
		if !wants(t, what, err, provider.Unauthorized) {
			return
		}
		if text := err.Error(); r.Name == "" || !strings.Contains(text, r.Name) || strings.Contains(text, "\n") || len(text) < 40 {
			t.Errorf("%s: %q does not say in one line that it is about %q and what to do", what, text, r.Name)
		}
		for _, secret := range r.Cloud.Secrets {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error holds a secret", what)
			}
		}
	}
	n := 0
	for _, err := range p.List(t.Context()) {
		check("List", err)
		n++
	}
	if n != 1 {
		t.Errorf("List yielded %d times", n)
	}
	_, err := p.Resolve(t.Context(), &provisionrv1.Wish{
		ClusterId: r.cluster, Pool: pool, Count: 1, Network: r.Network, Hardware: r.Wish.GetHardware(), Image: r.Wish.GetImage(),
		Os: &provisionrv1.OperatingSystem{Distribution: "debian", Release: "12"},
	})
	check("Resolve", err)
	_, err = p.EnsureNetwork(t.Context(), r.Network)
	check("EnsureNetwork", err)
	check("Terminate", p.Terminate(t.Context(), "m-"+random(16), ""))
	good := r.New(t, r.cluster)
	request := r.request(t, good)
	_, err = p.Launch(t.Context(), request)
	check("Launch", err)
}
