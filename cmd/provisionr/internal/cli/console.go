package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

func newConsole(o *options) *cobra.Command {
	return &cobra.Command{
		Use:               "console MACHINE",
		Short:             "Show the tail of a machine's boot console",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("machines")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			r, err := c.machines.GetConsole(ctx, &provisionrv1.GetConsoleRequest{Name: args[0]})
			if err != nil {
				return err
			}
			_, err = io.WriteString(o.streams.Out, harmless(r.Console))
			return err
		}),
	}
}

// harmless removes what a console could do to the terminal of the person who reads it.
func harmless(s string) string {
	lines := strings.SplitAfter(s, "\n")
	for i, line := range lines {
		text, end := strings.CutSuffix(line, "\n")
		lines[i] = clean(strings.TrimRight(text, "\r"))
		if end {
			lines[i] += "\n"
		}
	}
	return strings.Join(lines, "")
}
