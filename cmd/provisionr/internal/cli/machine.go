package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func newMachine(o *options) *cobra.Command {
	return group("machine", "Act on a machine", newAdopt(o), newReboot(o))
}

func newAdopt(o *options) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "adopt SLOT --address ADDRESS",
		Short: "Say how a machine that exists joins as the machine of a slot",
		Long: `Say how a machine that exists - bare metal, or another tool's - joins as the machine of a slot.

The slot is one of a pool whose provider is of kind static, and waits for its machine. What is printed is one line to run on
that machine, which needs systemd and curl: it fetches a script from this cluster's server, whose key is pinned, and the
script installs the agent. The line holds the machine's one-time token: whoever runs it first is that machine.

Running the command again prints the same line again, until the machine has joined.`,
		Example:           `  provisionr machine adopt db-1 --address 192.0.2.7 | ssh 192.0.2.7 sh`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("machines")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			r, err := c.machines.AdoptMachine(ctx, &provisionrv1.AdoptMachineRequest{Name: args[0], Address: address, RequestId: requestID()})
			if err != nil {
				return err
			}
			// Never with colours or cut: it is for a shell.
			fmt.Fprintln(o.streams.Out, r.GetCommand())
			fmt.Fprintf(o.streams.Err, "run this line on the machine at %s: it joins as %s\n", r.GetMachine().GetStatus().GetAddress(), machineName(r.GetMachine()))
			return nil
		}),
	}
	cmd.Flags().StringVar(&address, "address", "", "the machine's address in its network (default: the one given before)")
	return cmd
}

func newReboot(o *options) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "reboot NAME",
		Short: "Have a machine boot again",
		Long: `Have a machine boot again, if the safety of its pool allows it: what must not be unavailable together is not.

The command ends when the machine has agreed. One that has not booted ten minutes later is degraded.`,
		Example:           `  provisionr machine reboot web-2 --reason "a new kernel"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("machines")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			_, err := c.machines.RebootMachine(ctx, &provisionrv1.RebootMachineRequest{Name: args[0], Reason: reason, RequestId: requestID()})
			if err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "%s boots again\n", args[0])
			return nil
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the history")
	return cmd
}
