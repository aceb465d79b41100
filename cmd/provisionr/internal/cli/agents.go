package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func newAgents(o *options) *cobra.Command {
	return group("agents", "Act on the agents of machines", newAgentsUpgrade(o))
}

func newAgentsUpgrade(o *options) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "upgrade SELECTOR",
		Short: "Give machines the agent that the servers hold",
		Long: `Give a machine (by slot, FQDN or id), all of a pool (pool/NAME), or all machines (all) the agent that the servers hold.

One machine of a pool follows the other. The first that does not come back with the new agent ends it: that machine takes its
old agent again by itself, and no other is begun. The exit code is 1 then.`,
		Example:           `  provisionr agents upgrade pool/web`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("machines")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			return runUpgrade(ctx, c, o.streams, args[0], timeout)
		}),
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Minute, "how long each machine may take to come back")
	return cmd
}

func runUpgrade(ctx context.Context, c *client, s Streams, selector string, timeout time.Duration) error {
	stream, err := c.machines.UpgradeAgents(ctx, &provisionrv1.UpgradeAgentsRequest{Selector: selector, Timeout: durationpb.New(timeout)})
	if err != nil {
		return err
	}
	on := colours(s.Out)
	failed := false
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if failed {
				return exitError
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch m.State {
		case "failed":
			failed = true
			fmt.Fprintln(s.Out, red.paint(fmt.Sprintf("%s: failed: %s", clean(m.Machine), clean(m.Error)), on))
		case "current":
			fmt.Fprintf(s.Out, "%s: has it already (%s)\n", clean(m.Machine), clean(m.Version))
		default:
			fmt.Fprintln(s.Out, green.paint(fmt.Sprintf("%s: %s (%s)", clean(m.Machine), clean(m.State), clean(m.Version)), on))
		}
	}
}
