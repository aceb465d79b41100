package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

// scene is what the watched pools and their machines look like.
type scene struct {
	pools    []*provisionrv1.Pool
	machines []*provisionrv1.Machine
}

// watching waits for pools while it shows their machines.
type watching struct {
	client  *client
	streams Streams
	pools   []string
	display display
}

// untilReady waits until all of the pools are ready and, if exact, have no machine too many.
func untilReady(ctx context.Context, c *client, s Streams, f waitFlags, pools []string, exact bool) error {
	w := newWatching(c, s, pools)
	return w.until(ctx, f, func(now scene) (bool, error) {
		for _, name := range pools {
			i := slices.IndexFunc(now.pools, func(p *provisionrv1.Pool) bool { return p.GetMetadata().GetName() == name })
			if i < 0 || now.pools[i].GetMetadata().GetDeleted() != nil {
				return false, errs.New(errs.NotFound, "cannot wait for pool %s: it has been deleted", name)
			}
			p := now.pools[i]
			if p.GetStatus().GetState() != "ready" || exact && p.GetStatus().GetMachines() > p.GetSpec().GetSize() {
				return false, nil
			}
		}
		return true, nil
	})
}

// untilGone waits until none of the pools exists.
func untilGone(ctx context.Context, c *client, s Streams, f waitFlags, pools []string) error {
	return newWatching(c, s, pools).until(ctx, f, func(now scene) (bool, error) { return len(now.pools) == 0, nil })
}

func newWatching(c *client, s Streams, pools []string) *watching {
	w := &watching{client: c, streams: s, pools: pools, display: &lineDisplay{out: s.Out, phases: map[string]provisionrv1.Phase{}}}
	if width, height, ok := size(s.Out); ok {
		w.display = &screenDisplay{out: s.Out, width: width, height: height, colour: colours(s.Out)}
	}
	return w
}

func (w *watching) until(ctx context.Context, f waitFlags, done func(scene) (bool, error)) error {
	bounded, cancel := f.bound(ctx)
	defer cancel()
	var (
		now   scene
		index uint64
	)
	for {
		next, newest, err := w.look(bounded, index)
		switch {
		case bounded.Err() != nil:
			w.display.finish(now)
			return w.gaveUp(ctx, f)
		case errs.Is(errs.FromRPC(err), errs.Timeout):
			// A server noticed the deadline first, or took too long: the next turn sees which.
			w.rest(bounded, time.Second)
			continue
		case errs.Is(errs.FromRPC(err), errs.Unavailable):
			// Servers may come and go while this watches: that is no reason to stop.
			w.display.note("waiting for a server: " + err.Error())
			index = 0
			w.rest(bounded, time.Second)
			continue
		case err != nil:
			w.display.finish(now)
			return err
		default:
			now, index = next, newest
			w.display.update(now)
		}
		ok, err := done(now)
		if err == nil && !ok {
			w.rest(bounded, shortest)
			continue
		}
		w.display.finish(now)
		return err
	}
}

// shortest is the least time between two looks, so that a busy cluster does not make the table flicker.
const shortest = 100 * time.Millisecond

// rest waits for a time, or less if ctx ends, which the caller sees by itself.
func (w *watching) rest(ctx context.Context, d time.Duration) { _ = pause(ctx, d) }

// look waits for a change after index, or for a moment, and returns how things are.
func (w *watching) look(ctx context.Context, index uint64) (scene, uint64, error) {
	machines, err := w.client.machines.ListMachines(ctx, &provisionrv1.ListMachinesRequest{
		Index: index, Wait: durationpb.New(w.display.patience()),
	})
	if err != nil {
		return scene{}, 0, err
	}
	pools, err := w.client.pools.ListPools(ctx, &provisionrv1.ListPoolsRequest{})
	if err != nil {
		return scene{}, 0, err
	}
	if pools.GetVersion().GetIndex() > machines.GetVersion().GetIndex() {
		// Pools that are ready must not be shown beside machines that were not yet.
		if machines, err = w.client.machines.ListMachines(ctx, &provisionrv1.ListMachinesRequest{}); err != nil {
			return scene{}, 0, err
		}
	}
	now := scene{
		pools: slices.DeleteFunc(pools.Pools, func(p *provisionrv1.Pool) bool { return !slices.Contains(w.pools, p.GetMetadata().GetName()) }),
		machines: slices.DeleteFunc(ordered(machines.Machines), func(m *provisionrv1.Machine) bool {
			return !slices.Contains(w.pools, m.GetSpec().GetPool())
		}),
	}
	return now, machines.GetVersion().GetIndex(), nil
}

func (w *watching) gaveUp(ctx context.Context, f waitFlags) error {
	names := strings.Join(w.pools, ", ")
	if errors.Is(ctx.Err(), context.Canceled) {
		fmt.Fprintf(w.streams.Err, "stopped watching %s: the servers go on with it\nhint: `provisionr get machines` shows how far they are\n", names)
		return exitInterrupted
	}
	return errs.New(errs.Timeout, "waiting for %s took longer than %s: the servers go on with it", names, f.timeout).
		WithHint("`provisionr describe pool %s` says what is missing", w.pools[0])
}

// pause waits for a time or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// ordered sorts machines by pool, slot number and creation.
func ordered(machines []*provisionrv1.Machine) []*provisionrv1.Machine {
	slices.SortStableFunc(machines, func(a, b *provisionrv1.Machine) int {
		if c := strings.Compare(a.GetSpec().GetPool(), b.GetSpec().GetPool()); c != 0 {
			return c
		}
		if a.GetSpec().GetIndex() != b.GetSpec().GetIndex() {
			return int(a.GetSpec().GetIndex()) - int(b.GetSpec().GetIndex())
		}
		return a.GetMetadata().GetCreated().AsTime().Compare(b.GetMetadata().GetCreated().AsTime())
	})
	return machines
}
