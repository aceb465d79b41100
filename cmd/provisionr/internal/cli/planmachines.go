package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

// runPlanMachines has machines compare themselves with what they should be, or would be with the objects.
func runPlanMachines(ctx context.Context, c *client, s Streams, f planFlags, objects []*provisionrv1.Object, pool string) error {
	response, err := c.manifests.PlanMachines(ctx, &provisionrv1.PlanMachinesRequest{
		Objects: objects, Pool: strings.TrimPrefix(pool, "pool/"), Timeout: durationpb.New(f.timeout),
	})
	if err != nil {
		return err
	}
	if err := f.output.message(s.Out, response, func() { writeMachinePlans(s.Out, response.Machines) }); err != nil {
		return err
	}
	changing, silent, unchecked := countPlans(response.Machines)
	switch {
	case unchecked > 0:
		return errs.New(errs.Unavailable, "cannot say all that would change: %s could not be checked", counted(unchecked, "resource")).
			WithHint("the lines that begin with error say why")
	case changing > 0 || silent > 0:
		return exitChanges
	}
	return nil
}

// countPlans counts the machines that would change, those that could not say so, and resources that could not be checked.
func countPlans(machines []*provisionrv1.MachinePlan) (changing, silent, unchecked int) {
	for _, m := range machines {
		switch {
		case m.Error != "":
			silent++
		case len(m.Resources) > 0:
			changing++
		}
		for _, r := range m.Resources {
			if r.Error != "" {
				unchecked++
			}
		}
	}
	return changing, silent, unchecked
}

func writeMachinePlans(w io.Writer, machines []*provisionrv1.MachinePlan) {
	on := colours(w)
	for _, m := range machines {
		switch {
		case m.Error != "":
			fmt.Fprintln(w, yellow.paint(fmt.Sprintf("! machine %s: %s", clean(m.Machine), clean(m.Error)), on))
			continue
		case len(m.Resources) == 0:
			fmt.Fprintf(w, "  machine %s: no change, %s compared\n", clean(m.Machine), counted(int(m.Checked), "resource"))
			continue
		}
		fmt.Fprintln(w, yellow.paint(fmt.Sprintf("~ machine %s: %d of %s would change", clean(m.Machine), len(m.Resources), counted(int(m.Checked), "resource")), on))
		for _, r := range m.Resources {
			fmt.Fprintf(w, "    %s\n", clean(r.Resource))
			writeDiff(w, r.Diff, on)
			if r.Error != "" {
				fmt.Fprintln(w, red.paint("      error: "+clean(r.Error), on))
			}
		}
	}
	changing, silent, _ := countPlans(machines)
	fmt.Fprintf(w, "machines: %d would change, %d as they are, %d not compared\n", changing, len(machines)-changing-silent, silent)
}

// writeDiff writes a difference line by line: what a machine has in its files is nothing to trust a terminal with.
func writeDiff(w io.Writer, diff string, on bool) {
	if diff == "" {
		return
	}
	for line := range strings.SplitSeq(strings.TrimRight(diff, "\n"), "\n") {
		paint := plain
		switch {
		case strings.HasPrefix(line, "-"):
			paint = red
		case strings.HasPrefix(line, "+"):
			paint = green
		}
		fmt.Fprintln(w, paint.paint("      "+clean(line), on))
	}
}
