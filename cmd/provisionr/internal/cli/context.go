package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/provisionr/provisionr/internal/contexts"
	"github.com/provisionr/provisionr/internal/errs"
)

func newContext(o *options) *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "List the clusters of the context file",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, file, err := loadContexts()
			if err != nil {
				return err
			}
			if len(file.Contexts) == 0 {
				fmt.Fprintf(o.streams.Err, "there is no context in %s\n", path)
				return nil
			}
			t := table{header: []string{"CURRENT", "NAME", "SERVERS", "AS"}}
			for _, c := range file.Contexts {
				current, as := "", "nobody"
				if c.Name == file.Current {
					current = "*"
				}
				switch {
				case c.Token != "" || c.TokenFile != "":
					as = "token"
				case c.Certificate != "":
					as = c.Path(c.Certificate)
				}
				t.add(current, c.Name, strings.Join(c.Servers, ","), as)
			}
			return t.write(o.streams.Out, colours(o.streams.Out))
		},
	}
	use := &cobra.Command{
		Use:   "use NAME",
		Short: "Choose the cluster that commands talk to",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, file, err := loadContexts()
			if err != nil {
				return err
			}
			if file.Find(args[0]) == nil {
				return errs.New(errs.NotFound, "there is no context %q", args[0]).WithHint("`provisionr context list` shows all")
			}
			file.Current = args[0]
			return file.Save(path)
		},
	}
	remove := &cobra.Command{
		Use:   "delete NAME",
		Short: "Forget a cluster; the cluster itself is not touched",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := contexts.DefaultPath()
			if err != nil {
				return err
			}
			return contexts.Remove(path, args[0])
		},
	}
	return group("context", "Choose the cluster that commands talk to", list, use, remove)
}

func loadContexts() (string, *contexts.File, error) {
	path, err := contexts.DefaultPath()
	if err != nil {
		return "", nil, err
	}
	file, err := contexts.Load(path)
	return path, file, err
}
