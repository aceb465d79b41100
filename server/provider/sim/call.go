package sim

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/provisionr/provisionr/server/provider"
)

// The ops: the actions of the API.
const (
	opList           = "list"
	opFind           = "find"
	opLaunch         = "launch"
	opTerminate      = "terminate"
	opPrune          = "prune"
	opNetwork        = "network"
	opConsole        = "console"
	opResolve        = "resolve"
	opGroups         = "groups"
	opFirewall       = "firewall"
	opDeleteFirewall = "delete-firewall"
)

// EC2Limits returns the request buckets that Amazon publishes for EC2 ("Request throttling for the Amazon EC2 API" in the
// Amazon EC2 Developer Guide) for the actions that the ops stand for: RunInstances, TerminateInstances, the Describe
// actions, and the mutating ones. RunInstances has a resource bucket too, of 1000 instances and 2 a second: with one
// instance a request, as each has user-data and a token of its own, it never binds before the bucket of requests.
func EC2Limits() map[string]provider.Bucket {
	describe, mutate := provider.Bucket{Size: 100, Rate: 20}, provider.Bucket{Size: 50, Rate: 5}
	return map[string]provider.Bucket{
		opLaunch: {Size: 5, Rate: 2}, opTerminate: {Size: 100, Rate: 5},
		opList: describe, opFind: describe, opNetwork: describe, opConsole: describe, opResolve: describe, opGroups: describe,
		opPrune: mutate, opFirewall: mutate, opDeleteFirewall: mutate,
	}
}

// LaunchMinimum is the shortest time in which a bucket lets that many calls through.
func LaunchMinimum(calls int, b provider.Bucket) time.Duration {
	return time.Duration(float64(max(0, calls-b.Size)) / b.Rate * float64(time.Second))
}

// bucket is a token bucket on the cloud's side. It is full at first.
type bucket struct {
	provider.Bucket
	tokens float64
	last   time.Time
}

// slack forgives what both sides' arithmetic differs by.
const slack = 1e-6

// take takes a token, or says when there will be one.
func (b *bucket) take(now time.Time) (after time.Duration, ok bool) {
	if b.last.IsZero() {
		b.tokens = float64(b.Size)
	} else {
		b.tokens = min(float64(b.Size), b.tokens+now.Sub(b.last).Seconds()*b.Rate)
	}
	b.last = now
	if b.tokens+slack < 1 {
		return time.Duration((1 - b.tokens) / b.Rate * float64(time.Second)), false
	}
	b.tokens--
	return 0, true
}

// call makes one call of the API: it waits for the limiter, then half of the latency, acts, and waits the other half. What
// breaks it before or after comes from the faults that were set, and from the seed. An error of act is the answer.
func (p *Provider) call(ctx context.Context, op, machineID string, act func() error) error {
	if err := p.limiter.Wait(ctx, op); err != nil {
		return err
	}
	c := p.cloud
	if op == opLaunch {
		if err := wait(ctx, c.LaunchLatency); err != nil {
			return err
		}
	}
	if err := wait(ctx, c.Latency/2); err != nil {
		return err
	}
	err := c.serve(op, machineID, act)
	if late := wait(ctx, c.Latency/2); late != nil {
		return late
	}
	if provider.KindOf(err) == provider.RateLimited {
		p.limiter.Throttled(provider.AfterOf(err))
	}
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	if d > 0 {
		timer := time.NewTimer(d)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	if err := ctx.Err(); err != nil {
		return provider.Errorf(provider.Unknown, "the call was cut off: %w", err)
	}
	return nil
}

func (c *Cloud) serve(op, machineID string, act func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls, c.fates, c.buckets = map[string]uint64{}, map[string]uint64{}, map[string]*bucket{}
	}
	c.calls[op]++
	if err := c.admit(op); err != nil {
		return err
	}
	if c.fault != nil {
		if err := c.fault(op, machineID); err != nil {
			return err
		}
	}
	before, after := c.fate(op, machineID)
	if before {
		return provider.Errorf(provider.Unknown, "simulated: 503 Service Unavailable from %s", op)
	}
	if err := act(); err != nil {
		return err
	}
	if c.fault != nil {
		if err := c.fault("lost-"+op, machineID); err != nil {
			return err
		}
	}
	if after {
		return provider.Errorf(provider.Unknown, "simulated: the connection was reset before %s answered", op)
	}
	return nil
}

// admit refuses what comes too fast.
func (c *Cloud) admit(op string) error {
	refuse := func(after time.Duration) error {
		err := provider.Errorf(provider.RateLimited, "simulated: too many calls of %s", op)
		err.After = max(after, time.Millisecond)
		return err
	}
	if c.throttled > 0 {
		c.throttled--
		return refuse(c.after)
	}
	limit, ok := c.Limits[op]
	if !ok {
		return nil
	}
	if c.buckets[op] == nil {
		c.buckets[op] = &bucket{Bucket: limit}
	}
	if after, ok := c.buckets[op].take(time.Now()); !ok {
		return refuse(after)
	}
	return nil
}

// fate says whether the call fails before or after it acts.
func (c *Cloud) fate(op, machineID string) (before, after bool) {
	if c.FaultRate <= 0 {
		return false, false
	}
	key := op + "/" + machineID
	c.fates[key]++
	switch u := c.random("fate", key, strconv.FormatUint(c.fates[key], 10)).Float64(); {
	case u < c.FaultRate/2:
		return true, false
	case u < c.FaultRate:
		return false, true
	}
	return false, false
}

// random returns the generator for what the words name.
func (c *Cloud) random(words ...string) *rand.Rand {
	h := fnv.New64a()
	for _, w := range words {
		// A hash takes everything.
		_, _ = h.Write([]byte(w))
		_, _ = h.Write([]byte{0})
	}
	return rand.New(rand.NewPCG(c.Seed, h.Sum64()))
}
