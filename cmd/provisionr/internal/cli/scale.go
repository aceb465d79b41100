package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

func newScale(o *options) *cobra.Command {
	var (
		wait  bool
		bound waitFlags
	)
	cmd := &cobra.Command{
		Use:   "scale POOL SIZE",
		Short: "Change the number of machines of a pool",
		Long:  "Change the number of machines of a pool. Machines with the highest numbers go first.",
		Args:  cobra.ExactArgs(2),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil {
			return errs.New(errs.Invalid, "cannot scale pool %s: %q is not a number of machines", args[0], args[1])
		}
		return o.run(func(ctx context.Context, c *client, args []string) error {
			if _, err := c.pools.ScalePool(ctx, &provisionrv1.ScalePoolRequest{Name: args[0], Size: uint32(n), RequestId: requestID()}); err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "pool %s is to have %s\n", args[0], counted(int(n), "machine"))
			if !wait {
				return nil
			}
			return untilReady(ctx, c, o.streams, bound, args[:1], true)
		})(cmd, args)
	}
	cmd.ValidArgsFunction = o.completeNames(resourceOf("pools"))
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the pool is ready")
	bound.register(cmd)
	return cmd
}
