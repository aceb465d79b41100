package converge

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/provisionr/provisionr/proto/agent/v1"
)

const (
	// checkTimeout and applyTimeout bound one call of a resource. Apply is long: a cold package transaction may be slow.
	checkTimeout = 2 * time.Minute
	applyTimeout = 30 * time.Minute
	maxDiff      = 4 << 10
)

// Outcome is what is known of one resource.
type Outcome struct {
	Resource string
	// Diff is what the first check found; empty where all was as desired.
	Diff string
	// Changed says that Apply was called and the second check found nothing.
	Changed bool
	// Drift says that the resource had been right before under the same desired state.
	Drift bool
	// Err says why the resource is not as desired, or not known to be.
	Err error
}

// Run is a finished run.
type Run struct {
	Started, Ended time.Time
	// Outcomes of all resources in order. Those that the run did not look at have the outcome of an earlier run, without its
	// Changed and Drift.
	Outcomes []Outcome
	// Checked is how many resources the run looked at.
	Checked int
}

// Err returns the first error of the run.
func (r *Run) Err() error {
	for _, o := range r.Outcomes {
		if o.Err != nil {
			return fmt.Errorf("%s: %w", o.Resource, o.Err)
		}
	}
	return nil
}

// Changed reports how many resources the run changed.
func (r *Run) Changed() int {
	n := 0
	for _, o := range r.Outcomes {
		if o.Changed {
			n++
		}
	}
	return n
}

var (
	// errBlocked marks a resource that was not tried because one before it failed.
	errBlocked = errors.New("waits for what comes before it")
	// ErrAudit is the error of a resource that differs in a plan that only audits.
	ErrAudit = errors.New("differs, and is only looked at")
)

// worker goes through resources. The zero value only checks.
type worker struct {
	apply bool
	audit bool
	now   func(resource string)
	// confirm applies what is guarded.
	confirm Confirmer
	// ahead asks for the units that checks look at. Nil has each ask for itself.
	ahead Ahead
	// began is told when the last check of a resource begins: what happened before that, the check has seen.
	began func(i int)
}

// pass is one run over a part of a plan.
type pass struct {
	*plan
	// picked are looked at; nil means all.
	picked []bool
	// moved are resources that changed, or got right, in this pass.
	moved []bool
	// looked are those that the pass has an outcome for.
	looked []bool
}

// run goes through the picked resources, and those that come after one that changed, in order.
func (w *worker) run(ctx context.Context, p *plan, picked []bool) (*Run, []bool) {
	run := &Run{Started: time.Now(), Outcomes: make([]Outcome, 0, len(p.resources))}
	s := &pass{plan: p, picked: picked, moved: make([]bool, len(p.resources)), looked: make([]bool, len(p.resources))}
	failed := make([]bool, len(p.resources))
	if w.ahead != nil {
		w.ahead(s.units()...)
		defer w.ahead()
	}
	for i, r := range p.resources {
		last := p.last[i]
		if ctx.Err() != nil {
			break
		}
		if !s.due(i) {
			last.Changed, last.Drift = false, false
			if last.Err == nil {
				last.Diff = ""
			}
			failed[i] = last.Err != nil
			run.Outcomes = append(run.Outcomes, last)
			continue
		}
		o := Outcome{Resource: p.graph.names[i]}
		if cause := blockedBy(p.graph.before[i], failed); cause >= 0 && w.apply {
			o.Err = fmt.Errorf("%w: %s failed", errBlocked, p.graph.names[cause])
		} else {
			w.settle(ctx, i, r, &o)
		}
		failed[i] = o.Err != nil
		s.moved[i] = o.Changed || o.Err == nil && last.Err != nil
		s.looked[i] = true
		run.Checked++
		run.Outcomes = append(run.Outcomes, o)
	}
	run.Ended = time.Now()
	return run, s.looked
}

// units are those that the picked resources look at, in their order.
func (s *pass) units() []string {
	var all []string
	for i, r := range s.resources {
		if looking, ok := r.(Looking); ok && (s.picked == nil || s.picked[i]) {
			all = append(all, looking.Units()...)
		}
	}
	return all
}

// due reports whether a resource is looked at: it was picked, or one before it is not what it was.
func (s *pass) due(i int) bool {
	if s.picked == nil || s.picked[i] {
		return true
	}
	for _, j := range s.graph.before[i] {
		if s.moved[j] {
			return true
		}
	}
	return false
}

func blockedBy(before []int, failed []bool) int {
	for _, j := range before {
		if failed[j] {
			return j
		}
	}
	return -1
}

// settle checks, applies and checks again.
func (w *worker) settle(ctx context.Context, i int, r Resource, o *Outcome) {
	diff, err := w.check(ctx, i, r)
	if err != nil {
		o.Err = fmt.Errorf("cannot check: %w", err)
		return
	}
	o.Diff = bounded(diff.Text)
	if diff.Empty() {
		return
	}
	if w.audit {
		o.Err = ErrAudit
		return
	}
	if !w.apply {
		return
	}
	if w.ahead != nil {
		w.ahead() // what was asked before a change says nothing after it
	}
	w.now(o.Resource)
	apply := r.Apply
	if guarded, ok := r.(Guarded); ok && w.confirm != nil {
		apply = func(ctx context.Context) error { return w.confirm.Apply(ctx, guarded) }
	}
	if o.Err = guard(ctx, applyTimeout, apply); o.Err != nil {
		return
	}
	again, err := w.check(ctx, i, r)
	switch {
	case err != nil:
		o.Err = fmt.Errorf("cannot check after the change: %w", err)
	case !again.Empty():
		o.Err = fmt.Errorf("still differs after the change: %s", bounded(again.Text))
	default:
		o.Changed = true
	}
}

func (w *worker) check(ctx context.Context, i int, r Resource) (diff Diff, err error) {
	if w.began != nil {
		w.began(i)
	}
	err = guard(ctx, checkTimeout, func(ctx context.Context) (err error) {
		diff, err = r.Check(ctx)
		return err
	})
	return diff, err
}

// guard bounds a call in time and turns a panic of one resource into its error: the others must go on being kept right.
func guard(ctx context.Context, timeout time.Duration, f func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done within %s", timeout))
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("defect: %v\n%s", p, bounded(string(debug.Stack())))
		}
	}()
	if err = f(ctx); err != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

func bounded(s string) string {
	if len(s) > maxDiff {
		s = s[:maxDiff-4] + "\n..."
	}
	return strings.ToValidUTF8(s, "?")
}

// change is the outcome as it is reported.
func (o *Outcome) change(at time.Time) *agentv1.ResourceChange {
	c := &agentv1.ResourceChange{Resource: o.Resource, Diff: o.Diff, Drift: o.Drift, At: timestamppb.New(at)}
	switch {
	case errors.Is(o.Err, ErrAudit):
		c.Audit = true
	case o.Err != nil:
		c.Error = bounded(o.Err.Error())
	}
	return c
}
