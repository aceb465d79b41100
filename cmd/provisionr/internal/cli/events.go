package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
)

type eventFlags struct {
	output  output
	follow  bool
	pool    string
	machine string
	after   uint64
	limit   uint32
}

func newEvents(o *options) *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what has happened",
		Args:  cobra.NoArgs,
		RunE: o.run(func(ctx context.Context, c *client, _ []string) error {
			return runEvents(ctx, c, o.streams, f)
		}),
	}
	f.output.register(cmd, "text", "json")
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "F", false, "go on with what happens, until Ctrl-C")
	flags.StringVar(&f.pool, "pool", "", "only about this pool")
	flags.StringVar(&f.machine, "machine", "", "only about this machine")
	flags.Uint64Var(&f.after, "after", 0, "only after this log index")
	flags.Uint32Var(&f.limit, "limit", 100, "show at most this many past events")
	return cmd
}

func runEvents(ctx context.Context, c *client, s Streams, f eventFlags) error {
	request := &provisionrv1.ListEventsRequest{Pool: f.pool, Machine: f.machine, After: f.after, Limit: f.limit}
	if !f.follow {
		response, err := c.events.ListEvents(ctx, request)
		if err != nil {
			return err
		}
		for _, e := range response.Events {
			if err := writeEvent(s.Out, f.output.format, e); err != nil {
				return err
			}
		}
		return nil
	}
	for {
		err := followEvents(ctx, c, s.Out, f.output.format, request)
		if ctx.Err() != nil {
			return exitInterrupted
		}
		if !errors.Is(err, io.EOF) && !errs.Is(errs.FromRPC(err), errs.Unavailable) {
			return err
		}
		// The server went away; another one goes on after the last event seen.
		if pause(ctx, time.Second) != nil {
			return exitInterrupted
		}
	}
}

// followEvents streams events and notes how far it got in the request.
func followEvents(ctx context.Context, c *client, w io.Writer, format string, request *provisionrv1.ListEventsRequest) error {
	stream, err := c.events.WatchEvents(ctx, request)
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			return err
		}
		request.After = max(request.After, e.GetVersion().GetIndex())
		if err := writeEvent(w, format, e); err != nil {
			return err
		}
	}
}

func writeEvent(w io.Writer, format string, e *provisionrv1.Event) error {
	if format == "json" {
		text, err := spec.MarshalJSON(e)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	on := colours(w)
	reason := e.GetReason()
	if e.GetWarning() {
		reason = red.paint(reason, on)
	}
	line := fmt.Sprintf("%s %s %s: %s", e.GetTime().AsTime().Local().Format("2006-01-02 15:04:05"), orDash(about(e)), reason, clean(e.GetMessage()))
	if by := e.GetCaller().GetName(); by != "" {
		line += dim.paint(" by "+by, on)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}
