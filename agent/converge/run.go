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

// Outcome is what a run did with one resource.
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
	Outcomes       []Outcome
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

// errBlocked marks a resource that was not tried because one before it failed.
var errBlocked = errors.New("waits for what comes before it")

// runOnce goes through ordered resources. With apply false it only checks. The order must come from Order.
func runOnce(ctx context.Context, ordered []Resource, g *graph, apply bool, now func(string)) *Run {
	run := &Run{Started: time.Now(), Outcomes: make([]Outcome, 0, len(ordered))}
	failed := make(map[int]bool)
	for i, r := range ordered {
		if ctx.Err() != nil {
			break
		}
		o := Outcome{Resource: g.names[i]}
		if cause := blockedBy(g.before[i], failed); cause >= 0 && apply {
			o.Err = fmt.Errorf("%w: %s failed", errBlocked, g.names[cause])
		} else {
			settle(ctx, r, &o, apply, now)
		}
		failed[i] = o.Err != nil
		run.Outcomes = append(run.Outcomes, o)
	}
	run.Ended = time.Now()
	return run
}

func blockedBy(before []int, failed map[int]bool) int {
	for _, j := range before {
		if failed[j] {
			return j
		}
	}
	return -1
}

// settle checks, applies and checks again.
func settle(ctx context.Context, r Resource, o *Outcome, apply bool, now func(string)) {
	diff, err := check(ctx, r)
	if err != nil {
		o.Err = fmt.Errorf("cannot check: %w", err)
		return
	}
	o.Diff = bounded(diff.Text)
	if diff.Empty() || !apply {
		return
	}
	now(o.Resource)
	if o.Err = guard(ctx, applyTimeout, r.Apply); o.Err != nil {
		return
	}
	again, err := check(ctx, r)
	switch {
	case err != nil:
		o.Err = fmt.Errorf("cannot check after the change: %w", err)
	case !again.Empty():
		o.Err = fmt.Errorf("still differs after the change: %s", bounded(again.Text))
	default:
		o.Changed = true
	}
}

func check(ctx context.Context, r Resource) (diff Diff, err error) {
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
	if o.Err != nil {
		c.Error = bounded(o.Err.Error())
	}
	return c
}
