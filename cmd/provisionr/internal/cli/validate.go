package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/provisionr/provisionr/docs/schema"
	"github.com/provisionr/provisionr/internal/version"
)

func newValidate(o *options) *cobra.Command {
	var f manifestFlags
	cmd := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check a manifest without a server",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			objects, err := f.read(o.streams)
			if err != nil {
				return err
			}
			for _, object := range objects {
				fmt.Fprintf(o.streams.Out, "%s is valid\n", manifestName(object))
			}
			return nil
		},
	}
	f.register(cmd)
	return cmd
}

func newSchema(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of manifests, for editors",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := o.streams.Out.Write(schema.JSON)
			return err
		},
	}
}

func newVersion(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintf(o.streams.Out, "provisionr %s\n", version.Version)
			return nil
		},
	}
}
