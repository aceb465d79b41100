package converge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

// Confirmer applies what can cut the machine off, and has it confirmed or undone.
type Confirmer interface {
	Apply(ctx context.Context, r Guarded) error
}

// Config of a Runner.
type Config struct {
	// Interval between full checks of a machine that is as desired, varied by a tenth. Default: 60 s.
	Interval time.Duration
	// FirstRetry and LastRetry bound the wait of a resource that failed. Default: 1 s and 60 s.
	FirstRetry, LastRetry time.Duration
	// Done is called after each run, before the next one starts. Required.
	Done func(Report)
	// Now is called with the name of a resource when its Apply starts. Default: nothing.
	Now func(resource string)
	// Confirm applies guarded resources. Default: as all others.
	Confirm Confirmer
	// Ahead asks for the units that a run looks at. Default: each check asks for itself.
	Ahead Ahead
	// Logger of changes and failures. Required.
	Logger *slog.Logger
}

// Plan is what a desired state asks for.
type Plan struct {
	Resources []Resource
	// Epoch stands for the desired state; it comes back in Report.
	Epoch any
	// Audit has differences reported and nothing applied.
	Audit bool
}

// Report is what a run tells.
type Report struct {
	// Epoch is that of the plan.
	Epoch any
	// First says that this was the first run of its epoch.
	First bool
	Run   *Run
	// Changes that the run made, differences and failures that are new or differ from those of the run before.
	Changes []*agentv1.ResourceChange
}

// Runner keeps a machine at its desired state. Its methods are safe for several goroutines.
type Runner struct {
	config Config
	wake   chan struct{}

	mu      sync.Mutex
	plan    *plan
	full    bool // all are due, those that failed too
	waiters []chan *Run
}

// plan is the resources of one desired state, in order. It is not changed once made, but for its history, which belongs to
// the goroutine of Run, and its schedule, which the Runner's lock guards.
type plan struct {
	epoch     any
	audit     bool
	resources []Resource
	graph     *graph
	triggers  map[Trigger][]int
	schedule  schedule
	history
}

// history is what the goroutine of Run remembers of the runs of one plan.
type history struct {
	runs   int
	last   []Outcome
	right  []bool
	failed []string
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

// Set replaces the plan and has all of it checked at once; a run under way ends first. An error, as of Order, leaves the old
// plan in place.
func (r *Runner) Set(desired Plan) error {
	p, err := newPlan(desired)
	if err != nil {
		return err
	}
	p.listen()
	p.schedule.first, p.schedule.last = r.config.FirstRetry, r.config.LastRetry
	r.mu.Lock()
	r.plan = p
	r.mu.Unlock()
	r.Wake()
	return nil
}

func newPlan(d Plan) (*plan, error) {
	ordered, err := Order(d.Resources)
	if err != nil {
		return nil, err
	}
	g, err := newGraph(ordered)
	if err != nil {
		return nil, err
	}
	n := len(ordered)
	p := &plan{epoch: d.Epoch, audit: d.Audit, resources: ordered, graph: g,
		schedule: schedule{places: make([]place, n)}, history: history{last: make([]Outcome, n), right: make([]bool, n), failed: make([]string, n)}}
	for i := range ordered {
		p.last[i].Resource = g.names[i]
	}
	return p, nil
}

// listen finds out what events the resources want to hear of.
func (p *plan) listen() {
	p.triggers = make(map[Trigger][]int)
	for i, resource := range p.resources {
		if triggered, ok := resource.(Triggered); ok {
			for _, t := range triggered.Triggers() {
				p.triggers[t] = append(p.triggers[t], i)
			}
		}
	}
}

// Triggers returns what the resources want to hear of, each once.
func Triggers(resources []Resource) []Trigger {
	var all []Trigger
	seen := make(map[Trigger]bool)
	for _, r := range resources {
		triggered, ok := r.(Triggered)
		if !ok {
			continue
		}
		for _, t := range triggered.Triggers() {
			if !seen[t] {
				seen[t] = true
				all = append(all, t)
			}
		}
	}
	return all
}

// Touch has the resources that declared one of the triggers checked within a moment. An event that one of our own changes
// caused costs one more check at most: what came before the last check began, that check has seen.
func (r *Runner) Touch(triggers ...Trigger) {
	now := time.Now()
	touched := false
	r.mu.Lock()
	if r.plan != nil {
		for _, t := range triggers {
			for _, i := range r.plan.triggers[t] {
				r.plan.schedule.touch(i, now)
				touched = true
			}
		}
	}
	r.mu.Unlock()
	if touched {
		r.signal()
	}
}

// Wake has all resources checked now, also those that failed.
func (r *Runner) Wake() {
	r.mu.Lock()
	r.full = true
	r.mu.Unlock()
	r.signal()
}

// Missed has all resources checked soon, for events about them may have been lost. Those that failed wait for their own time.
func (r *Runner) Missed() {
	r.mu.Lock()
	if r.plan != nil {
		r.plan.schedule.lost(time.Now())
	}
	r.mu.Unlock()
	r.signal()
}

// Retry has what failed tried now.
func (r *Runner) Retry() {
	now := time.Now()
	r.mu.Lock()
	if r.plan != nil {
		for i := range r.plan.schedule.places {
			if p := &r.plan.schedule.places[i]; !p.retry.IsZero() {
				p.retry, p.wait = now, 0
			}
		}
	}
	r.mu.Unlock()
	r.signal()
}

func (r *Runner) signal() {
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

// begin returns what the next run does: the plan, or nil where nothing is due, what of it, nil for all, and who waits for a
// full run.
func (r *Runner) begin(now time.Time) (p *plan, picked []bool, waiters []chan *Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plan == nil {
		return nil, nil, nil
	}
	s := &r.plan.schedule
	if full := !now.Before(s.full); full || r.full {
		defer func() { s.full = now.Add(r.config.Interval + rand.N(r.config.Interval/5) - r.config.Interval/10) }()
	}
	if r.full {
		r.full = false
		waiters, r.waiters = r.waiters, nil
		return r.plan, nil, waiters
	}
	if picked = s.pick(now); picked == nil {
		return nil, nil, nil
	}
	return r.plan, picked, nil
}

// Run converges until ctx ends, and returns nil then.
func (r *Runner) Run(ctx context.Context) error {
	timer := time.NewTimer(r.config.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		}
		if p, picked, waiters := r.begin(time.Now()); p != nil {
			w := &worker{apply: !p.audit, audit: p.audit, now: r.config.Now, confirm: r.config.Confirm, ahead: r.config.Ahead, began: func(i int) { r.began(p, i) }}
			run, looked := w.run(ctx, p, picked)
			if ctx.Err() != nil {
				return nil // cut short: its errors say nothing about the machine
			}
			r.config.Done(r.conclude(p, run, looked))
			for _, w := range waiters {
				w <- run
			}
		}
		r.mu.Lock()
		if r.plan != nil {
			timer.Reset(time.Until(r.plan.schedule.next()))
		}
		r.mu.Unlock()
	}
}

func (r *Runner) began(p *plan, i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.schedule.began(i)
}

// conclude marks drift, and tells what is new in a run beside the ones before it.
func (r *Runner) conclude(p *plan, run *Run, looked []bool) Report {
	report := Report{Epoch: p.epoch, First: p.runs == 0, Run: run}
	p.runs++
	for i := range run.Outcomes {
		o := &run.Outcomes[i]
		if !looked[i] {
			continue
		}
		o.Drift = o.Diff != "" && p.right[i]
		p.right[i] = o.Err == nil
		p.last[i] = *o
		blocked := errors.Is(o.Err, errBlocked)
		r.mu.Lock()
		strikes, slow := p.schedule.ended(i, o, blocked, run.Ended), p.schedule.places[i].slow
		r.mu.Unlock()
		switch {
		case blocked:
			continue
		case o.Err != nil:
			reason := o.Err.Error()
			if errors.Is(o.Err, ErrAudit) {
				reason = o.Diff
			}
			if p.failed[i] == reason {
				continue
			}
			p.failed[i] = reason
			r.config.Logger.Error("resource failed", "resource", o.Resource, "drift", o.Drift, "error", o.Err)
		case o.Changed:
			p.failed[i] = ""
			r.config.Logger.Info("resource changed", "resource", o.Resource, "drift", o.Drift)
		default:
			p.failed[i] = ""
			continue
		}
		report.Changes = append(report.Changes, o.change(run.Ended))
		if strikes > 0 {
			fight := fmt.Sprintf("repaired %d times in a row: something else changes it too; it is repaired after %s from now on", strikes, slow)
			r.config.Logger.Warn("resource drifts again and again", "resource", o.Resource, "repairs", strikes, "pause", slow)
			report.Changes = append(report.Changes, &agentv1.ResourceChange{Resource: o.Resource, Drift: true, At: timestamppb.New(run.Ended), Error: fight})
		}
	}
	return report
}

// Check orders the resources and checks each one without changing anything. Ahead may be nil.
func Check(ctx context.Context, resources []Resource, ahead Ahead) (*Run, error) {
	p, err := newPlan(Plan{Resources: resources})
	if err != nil {
		return nil, err
	}
	run, _ := (&worker{ahead: ahead}).run(ctx, p, nil)
	return run, ctx.Err()
}
