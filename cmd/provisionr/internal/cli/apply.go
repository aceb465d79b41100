package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// waitFlags bound the wait for pools.
type waitFlags struct {
	timeout time.Duration
}

func (f *waitFlags) register(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.timeout, "timeout", 30*time.Minute, "give up waiting after this time; 0 waits for ever")
}

// bound returns ctx with the timeout.
func (f *waitFlags) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if f.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, f.timeout)
}

type applyFlags struct {
	manifest    manifestFlags
	wait        waitFlags
	yes, noWait bool
}

func newApply(o *options) *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or change objects, and watch pools become ready",
		Long: `Create or change all objects of a manifest, or none.

The plan is shown first, and confirmed at a terminal or by --yes. Then the machines are shown until every pool of the
manifest is ready. Ctrl-C ends the watching only: the servers go on.`,
		Example: `  provisionr apply -f examples/zookeeper.yaml --ssh-key ~/.ssh/id_ed25519.pub
  provisionr apply -f pools/ --yes --no-wait`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		objects, err := f.manifest.read(o.streams)
		if err != nil {
			return err
		}
		return o.run(func(ctx context.Context, c *client, _ []string) error {
			return runApply(ctx, c, o.streams, f, objects)
		})(cmd, args)
	}
	f.manifest.register(cmd)
	f.wait.register(cmd)
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&f.noWait, "no-wait", false, "do not wait for pools to become ready")
	return cmd
}

func runApply(ctx context.Context, c *client, s Streams, f applyFlags, objects []*provisionrv1.Object) error {
	plan, err := c.manifests.Plan(ctx, &provisionrv1.PlanRequest{Objects: objects})
	if err != nil {
		return err
	}
	writeChanges(s.Out, plan.Changes)
	if n := refused(plan.Changes); n > 0 {
		return notToBe(n)
	}
	if n := changing(plan.Changes); n > 0 {
		if !f.yes {
			if err := ask(ctx, s, fmt.Sprintf("apply %s?", counted(n, "change"))); err != nil {
				return err
			}
		}
		if _, err := c.manifests.Apply(ctx, &provisionrv1.ApplyRequest{Objects: objects, RequestId: requestID()}); err != nil {
			return err
		}
		fmt.Fprintln(s.Out, "applied")
	}
	var pools []string
	for _, o := range objects {
		if p := o.GetPool(); p != nil {
			pools = append(pools, p.GetMetadata().GetName())
		}
	}
	if f.noWait || len(pools) == 0 {
		return nil
	}
	return untilReady(ctx, c, s, f.wait, pools, false)
}
