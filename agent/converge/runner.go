package converge

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Config of a Runner.
type Config struct {
	// Interval between full checks of a machine that is as desired, varied by a tenth. Default: 60 s.
	Interval time.Duration
	// FirstRetry and LastRetry bound the wait after a run with failures. Default: 1 s and 60 s.
	FirstRetry, LastRetry time.Duration
	// Done is called after each run, before the next one starts. Required.
	Done func(Report)
	// Now is called with the name of a resource when its Apply starts. Default: nothing.
	Now func(resource string)
	// Logger of changes and failures. Required.
	Logger *slog.Logger
}

// Report is what a run tells.
type Report struct {
	// Epoch is what Set was called with.
	Epoch any
	// First says that this was the first run of its epoch.
	First bool
	Run   *Run
	// Changes that the run made, and failures that are new or differ from those of the run before.
	Changes []*agentv1.ResourceChange
}

// Runner keeps a machine at its desired state. Its methods are safe for several goroutines.
type Runner struct {
	config Config
	wake   chan struct{}

	mu      sync.Mutex
	plan    *plan
	waiters []chan *Run
}

// plan is the resources of one desired state, in order. It is not changed once made, but for its history.
type plan struct {
	epoch     any
	resources []Resource
	graph     *graph
	history
}

// history is what the goroutine of Run remembers of the runs of one plan.
type history struct {
	runs   int
	right  map[string]bool
	failed map[string]string
}

// New returns a Runner with nothing to do.
func New(c Config) (*Runner, error) {
	if c.Done == nil || c.Logger == nil {
		return nil, errors.New("cannot make runner: Done and Logger are required")
	}
	if c.Interval <= 0 {
		c.Interval = time.Minute
	}
	if c.FirstRetry <= 0 {
		c.FirstRetry = time.Second
	}
	if c.LastRetry <= 0 {
		c.LastRetry = time.Minute
	}
	if c.Now == nil {
		c.Now = func(string) {}
	}
	return &Runner{config: c, wake: make(chan struct{}, 1)}, nil
}

// Set replaces the resources and has them checked at once; a run under way ends first. The epoch, which comes back in
// Report, stands for the desired state. An error, as of Order, leaves the old resources in place.
func (r *Runner) Set(resources []Resource, epoch any) error {
	p, err := newPlan(resources, epoch)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.plan = p
	r.mu.Unlock()
	r.Wake()
	return nil
}

func newPlan(resources []Resource, epoch any) (*plan, error) {
	ordered, err := Order(resources)
	if err != nil {
		return nil, err
	}
	g, err := newGraph(ordered)
	if err != nil {
		return nil, err
	}
	return &plan{epoch: epoch, resources: ordered, graph: g,
		history: history{right: make(map[string]bool), failed: make(map[string]string)}}, nil
}

// Wake has all resources checked now.
func (r *Runner) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Now has all resources checked now and returns the run, which began after the call. With no resources set yet it waits.
func (r *Runner) Now(ctx context.Context) (*Run, error) {
	done := make(chan *Run, 1)
	r.mu.Lock()
	r.waiters = append(r.waiters, done)
	r.mu.Unlock()
	r.Wake()
	select {
	case run := <-done:
		return run, nil
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		r.waiters = slices.DeleteFunc(r.waiters, func(w chan *Run) bool { return w == done })
		return nil, ctx.Err()
	}
}

// begin returns the plan of the next run, or nil, and who waits for it.
func (r *Runner) begin() (*plan, []chan *Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plan == nil {
		return nil, nil
	}
	waiters := r.waiters
	r.waiters = nil
	return r.plan, waiters
}

// Run converges until ctx ends, and returns nil then.
func (r *Runner) Run(ctx context.Context) error {
	timer := time.NewTimer(r.config.Interval)
	defer timer.Stop()
	var retry time.Duration
	var last *plan
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		}
		p, waiters := r.begin()
		if p == nil {
			continue
		}
		run := runOnce(ctx, p.resources, p.graph, true, r.config.Now)
		if ctx.Err() != nil {
			return nil // cut short: its errors say nothing about the machine
		}
		r.config.Done(r.conclude(p, run))
		for _, w := range waiters {
			w <- run
		}
		if p != last {
			last, retry = p, 0
		}
		next := r.config.Interval + rand.N(r.config.Interval/5) - r.config.Interval/10
		if run.Err() != nil {
			retry = min(max(2*retry, r.config.FirstRetry), r.config.LastRetry)
			next = retry
		} else {
			retry = 0
		}
		timer.Reset(next)
	}
}

// conclude marks drift, and tells what is new in a run beside the one before it.
func (r *Runner) conclude(p *plan, run *Run) Report {
	report := Report{Epoch: p.epoch, First: p.runs == 0, Run: run}
	p.runs++
	for i := range run.Outcomes {
		o := &run.Outcomes[i]
		o.Drift = o.Diff != "" && p.right[o.Resource]
		p.right[o.Resource] = o.Err == nil
		switch {
		case o.Err != nil:
			if errors.Is(o.Err, errBlocked) || p.failed[o.Resource] == o.Err.Error() {
				continue
			}
			p.failed[o.Resource] = o.Err.Error()
			r.config.Logger.Error("resource failed", "resource", o.Resource, "drift", o.Drift, "error", o.Err)
		case o.Changed:
			delete(p.failed, o.Resource)
			r.config.Logger.Info("resource changed", "resource", o.Resource, "drift", o.Drift)
		default:
			delete(p.failed, o.Resource)
			continue
		}
		report.Changes = append(report.Changes, o.change(run.Ended))
	}
	return report
}

// Check orders the resources and checks each one without changing anything.
func Check(ctx context.Context, resources []Resource) (*Run, error) {
	p, err := newPlan(resources, nil)
	if err != nil {
		return nil, err
	}
	return runOnce(ctx, p.resources, p.graph, false, func(string) {}), ctx.Err()
}
