package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

type planFlags struct {
	manifest manifestFlags
	output   output
	// machines asks the machines; timeout is how long each may take.
	machines bool
	timeout  time.Duration
}

func newPlan(o *options) *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan -f FILE | plan --machines [-f FILE] [POOL]",
		Short: "Say what applying a manifest would change",
		Long:  "Say what applying a manifest would change, and change nothing.\n\nThe exit code is 0 if nothing would change, 2 if something would, and 1 for an error or where a provider\ncannot do what the manifest says.\n\nWith --machines the connected machines are asked: each compares itself with what it would be with the manifest or,\nwithout one, with what it should be now, and says what it would change. A machine that cannot be asked counts as a change.",
		Example: `  provisionr plan -f examples/web.yaml
  provisionr plan --machines -f examples/web.yaml
  provisionr plan --machines web`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("pools")),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 && !f.machines {
			return errs.New(errs.Invalid, "cannot plan %q: a pool is named with --machines only", args[0]).WithHint("name a manifest with -f")
		}
		var objects []*provisionrv1.Object
		if !f.machines || len(f.manifest.files) > 0 {
			var err error
			if objects, err = f.manifest.read(o.streams); err != nil { // before a server is needed
				return err
			}
		}
		return o.run(func(ctx context.Context, c *client, args []string) error {
			if f.machines {
				return runPlanMachines(ctx, c, o.streams, f, objects, strings.Join(args, ""))
			}
			return runPlan(ctx, c, o.streams, f, objects)
		})(cmd, args)
	}
	f.manifest.register(cmd)
	cmd.Flags().BoolVar(&f.machines, "machines", false, "have the machines say what they would change")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 30*time.Second, "with --machines: how long each machine may take")
	f.output.register(cmd, "text", "json", "yaml")
	return cmd
}

func runPlan(ctx context.Context, c *client, s Streams, f planFlags, objects []*provisionrv1.Object) error {
	response, err := c.manifests.Plan(ctx, &provisionrv1.PlanRequest{Objects: objects})
	if err != nil {
		return err
	}
	if err := f.output.message(s.Out, response, func() { writeChanges(s.Out, response.Changes) }); err != nil {
		return err
	}
	if n := refused(response.Changes); n > 0 {
		return notToBe(n)
	}
	if changing(response.Changes) > 0 {
		return exitChanges
	}
	return nil
}

// refused counts the changes that a provider cannot do.
func refused(changes []*provisionrv1.Change) int {
	n := 0
	for _, c := range changes {
		if len(c.Errors) > 0 {
			n++
		}
	}
	return n
}

func notToBe(n int) error {
	return errs.New(errs.Invalid, "cannot apply this manifest: a provider refuses %s", counted(n, "change")).
		WithHint("the lines that begin with error say why; nothing was changed")
}

// changing counts the changes that are some.
func changing(changes []*provisionrv1.Change) int {
	n := 0
	for _, c := range changes {
		if c.Action != "none" || len(c.Machines) > 0 {
			n++
		}
	}
	return n
}

// maxFields bounds the fields shown of one change: a new pool with a thousand packages is not read line by line.
const maxFields = 60

func writeChanges(w io.Writer, changes []*provisionrv1.Change) {
	on := colours(w)
	counts := map[string]int{}
	for _, c := range changes {
		sign, style := signOf(c.Action)
		counts[c.Action]++
		if c.Action == "none" && len(c.Machines) == 0 {
			continue
		}
		fmt.Fprintln(w, style.paint(fmt.Sprintf("%s %s %s: %s", sign, strings.ToLower(c.Kind), c.Name, c.Action), on))
		for i, f := range c.Fields {
			if i == maxFields {
				fmt.Fprintf(w, "    and %s\n", counted(len(c.Fields)-i, "more field"))
				break
			}
			writeField(w, f, c.Action)
		}
		for _, m := range c.Machines {
			fmt.Fprintf(w, "  machine: %s\n", clean(m))
		}
		for _, line := range c.Provider {
			fmt.Fprintf(w, "  provider: %s\n", clean(line))
		}
		for _, warning := range c.Warnings {
			fmt.Fprintln(w, yellow.paint("  warning: "+clean(warning), on))
		}
		for _, text := range c.Errors {
			fmt.Fprintln(w, red.paint("  error: "+clean(text), on))
		}
	}
	if changing(changes) == 0 {
		fmt.Fprintf(w, "nothing to change: %s as in the manifest\n", counted(len(changes), "object"))
		return
	}
	fmt.Fprintf(w, "plan: %d to create, %d to change, %d as they are\n", counts["create"], len(changes)-counts["create"]-counts["none"], counts["none"])
}

func signOf(action string) (string, style) {
	switch action {
	case "create":
		return "+", green
	case "delete":
		return "-", red
	case "none":
		return " ", plain
	}
	return "~", yellow
}

func writeField(w io.Writer, f *provisionrv1.FieldChange, action string) {
	const most = 100
	before, after := short(clean(f.Before), most), short(clean(f.After), most)
	switch {
	case action == "create" || f.Before == "":
		fmt.Fprintf(w, "    %s: %s\n", f.Path, after)
	case f.After == "":
		fmt.Fprintf(w, "    %s: %s -> (none)\n", f.Path, before)
	default:
		fmt.Fprintf(w, "    %s: %s -> %s\n", f.Path, before, after)
	}
}
