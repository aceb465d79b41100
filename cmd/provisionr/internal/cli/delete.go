package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

type deleteFlags struct {
	yes, wait bool
	timeout   waitFlags
}

// deletion is a kind that can be deleted.
type deletion struct {
	kind, short, warning string
	delete               func(ctx context.Context, c *client, name string) error
}

func newDelete(o *options) *cobra.Command {
	infra := func(kind string) func(ctx context.Context, c *client, name string) error {
		return func(ctx context.Context, c *client, name string) error {
			_, err := c.infra.DeleteInfra(ctx, &provisionrv1.DeleteInfraRequest{Kind: kind, Name: name, RequestId: requestID()})
			return err
		}
	}
	kinds := []deletion{
		{"pool", "Delete a pool with all its machines", "delete pool %s and all its machines?", func(ctx context.Context, c *client, name string) error {
			_, err := c.pools.DeletePool(ctx, &provisionrv1.DeletePoolRequest{Name: name, RequestId: requestID()})
			return err
		}},
		{"machine", "Delete a machine; its pool replaces it", "delete machine %s?", func(ctx context.Context, c *client, name string) error {
			_, err := c.machines.DeleteMachine(ctx, &provisionrv1.DeleteMachineRequest{Name: name, RequestId: requestID()})
			return err
		}},
		{"zone", "Delete a zone that no pool uses", "delete zone %s?", infra("zones")},
		{"network", "Delete a network that no pool uses", "delete network %s?", infra("networks")},
		{"provider", "Delete a provider that nothing uses", "delete provider %s?", infra("providers")},
		{"user", "Delete a user", "delete user %s?", func(ctx context.Context, c *client, name string) error {
			_, err := c.access.DeleteUser(ctx, &provisionrv1.DeleteUserRequest{Name: name})
			return err
		}},
	}
	cmd := group("delete", "Delete a pool, machine, zone, network, provider or user")
	for _, k := range kinds {
		var f deleteFlags
		sub := &cobra.Command{
			Use:               k.kind + " NAME...",
			Short:             k.short,
			Args:              cobra.MinimumNArgs(1),
			ValidArgsFunction: o.completeNames(resourceOf(k.kind)),
			RunE: o.run(func(ctx context.Context, c *client, args []string) error {
				return runDelete(ctx, c, o.streams, k, f, args)
			}),
		}
		sub.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
		if k.kind == "pool" {
			sub.Flags().BoolVar(&f.wait, "wait", false, "wait until the last machine is gone")
			f.timeout.register(sub)
		}
		cmd.AddCommand(sub)
	}
	return cmd
}

func runDelete(ctx context.Context, c *client, s Streams, k deletion, f deleteFlags, names []string) error {
	if !f.yes {
		if err := ask(ctx, s, fmt.Sprintf(k.warning, strings.Join(names, ", "))); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := k.delete(ctx, c, name); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "%s/%s is being deleted\n", k.kind, name)
	}
	if !f.wait {
		return nil
	}
	if err := untilGone(ctx, c, s, f.timeout, names); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "deleted %s\n", strings.Join(names, ", "))
	return nil
}
