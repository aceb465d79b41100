package agent

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/agent/cache"
	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/desired"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/programs"
	"github.com/provisionr/provisionr/agent/secrets"
	"github.com/provisionr/provisionr/internal/errs"
)

// Check compares the machine once with its cached desired state, changes nothing, and writes what differs and what it cost.
// It reports whether all is as desired. An agent may be running beside it.
func Check(ctx context.Context, h *host.Host, out io.Writer) (bool, error) {
	before, err := cpuTime()
	if err != nil {
		return false, err
	}
	state, err := cached(h)
	if err != nil {
		return false, err
	}
	run, err := converge.Check(ctx, Resources(state, h), h.Units.Ahead)
	if err != nil {
		return false, err
	}
	after, err := cpuTime()
	if err != nil {
		return false, err
	}
	differ, failed := 0, 0
	for _, o := range run.Outcomes {
		switch {
		case o.Err != nil:
			failed++
			fmt.Fprintf(out, "%s: %v\n", o.Resource, o.Err)
		case o.Diff != "":
			differ++
			fmt.Fprintf(out, "%s:\n%s\n", o.Resource, o.Diff)
		}
	}
	_, err = fmt.Fprintf(out, "generation %d: %d resources checked in %s with %s of CPU: %d differ, %d failed\n", state.PoolGeneration,
		len(run.Outcomes), run.Ended.Sub(run.Started).Round(10*time.Microsecond), (after - before).Round(10*time.Microsecond), differ, failed)
	return differ+failed == 0, err
}

// cached reads the desired state that the agent has last been given.
func cached(h *host.Host) (*desired.State, error) {
	state, err := cache.Read(filepath.Join(h.Root, CacheDir))
	if err != nil {
		return nil, err
	}
	if state == nil {
		return nil, errs.New(errs.NotFound, "cannot check: this machine has no desired state yet").
			WithHint("see provisionr-agent status, and journalctl -u provisionr-agent")
	}
	state.Secrets, state.Programs = secrets.New(h, nil).For(state), programs.New(h, nil).For(state)
	return state, nil
}

// Repeat measures what a check costs inside an agent that runs: the mean CPU time of times checks by content, with nothing
// remembered, and of as many that remember what they saw, as every check but the slow ones does.
func Repeat(ctx context.Context, h *host.Host, times int, out io.Writer) error {
	state, err := cached(h)
	if err != nil {
		return err
	}
	warm := Resources(state, h)
	measure := func(what string, resources func() []converge.Resource) error {
		if _, err := converge.Check(ctx, resources(), h.Units.Ahead); err != nil { // connections and caches of the process
			return err
		}
		before, err := cpuTime()
		if err != nil {
			return err
		}
		for range times {
			if _, err := converge.Check(ctx, resources(), h.Units.Ahead); err != nil {
				return err
			}
		}
		after, err := cpuTime()
		if err != nil {
			return err
		}
		mean := (after - before) / time.Duration(max(times, 1))
		_, err = fmt.Fprintf(out, "%d checks %s: %.3f ms of CPU each\n", times, what, mean.Seconds()*1e3)
		return err
	}
	if err := measure("by content", func() []converge.Resource { return Resources(state, h) }); err != nil {
		return err
	}
	return measure("of what changed", func() []converge.Resource { return warm })
}

// cpuTime is what this process and its children that ended have used, in user and system mode (getrusage(2)).
func cpuTime() (time.Duration, error) {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			return 0, errs.New(errs.Internal, "cannot measure CPU time: %w", err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum, nil
}
