package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/proto"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

// maxSecret bounds a value in bytes.
const maxSecret = 64 << 10

func newSecret(o *options) *cobra.Command {
	var (
		file string
		list output
	)
	set := &cobra.Command{
		Use:   "set NAME [--from-file FILE | -]",
		Short: "Create a secret or give it another value",
		Long: `Create a secret, or give it another value, which the machines that use it get at once.

The value is read from a file, from standard input with -, or asked for at a terminal. It is kept encrypted, and is never
shown again. Files refer to it by spec.files[].secret, templates by {{ secret "NAME" }}.`,
		Example: `  provisionr secret set db-password
  openssl rand -hex 32 | tr -d '\n' | provisionr secret set session-key -`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: o.completeNames(resourceOf("secrets")),
	}
	set.RunE = func(cmd *cobra.Command, args []string) error {
		value, err := secretValue(o.streams, args, file)
		if err != nil {
			return err
		}
		return o.run(func(ctx context.Context, c *client, args []string) error {
			if _, err := c.secrets.PutSecret(ctx, &provisionrv1.PutSecretRequest{Name: args[0], Value: value, RequestId: requestID()}); err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "set secret %s\n", args[0])
			return nil
		})(cmd, args)
	}
	set.Flags().StringVar(&file, "from-file", "", "file that holds the value, every byte of it")
	all := &cobra.Command{
		Use:   "list",
		Short: "List secrets, without their values",
		Args:  cobra.NoArgs,
		RunE: o.run(func(ctx context.Context, c *client, _ []string) error {
			return runGet(ctx, c, o.streams, resourceOf("secrets"), getFlags{output: list}, nil)
		}),
	}
	list.register(all)
	remove := &cobra.Command{
		Use:               "delete NAME",
		Short:             "Delete a secret that no pool refers to",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("secrets")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			if _, err := c.secrets.DeleteSecret(ctx, &provisionrv1.DeleteSecretRequest{Name: args[0], RequestId: requestID()}); err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "deleted secret %s\n", args[0])
			return nil
		}),
	}
	return group("secret", "Manage secrets", set, all, remove)
}

// secretValue reads a value from where the arguments say.
func secretValue(s Streams, args []string, file string) (value []byte, err error) {
	switch {
	case len(args) > 1 && (args[1] != "-" || file != ""):
		return nil, errs.New(errs.Invalid, "cannot take the value from the command line, where others see it").
			WithHint("give --from-file FILE, or - to read standard input")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, errs.New(errs.Invalid, "cannot read the value: %w", err)
		}
		defer f.Close()
		return bounded(f)
	case len(args) > 1:
		return bounded(s.In)
	}
	fd, ok := descriptor(s.In)
	if !ok {
		return nil, errs.New(errs.Invalid, "cannot ask for the value: the input is not a terminal").WithHint("give --from-file FILE, or - to read standard input")
	}
	var typed [2][]byte
	for i, prompt := range []string{"value of " + args[0] + ": ", "once more: "} {
		fmt.Fprint(s.Err, prompt)
		typed[i], err = term.ReadPassword(fd)
		fmt.Fprintln(s.Err)
		if err != nil {
			return nil, errs.New(errs.Invalid, "cannot read the value: %w", err)
		}
	}
	if !bytes.Equal(typed[0], typed[1]) {
		return nil, errs.New(errs.Invalid, "the two values differ: nothing was changed")
	}
	return typed[0], nil
}

func bounded(r io.Reader) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot read the value: %w", err)
	}
	if len(value) > maxSecret {
		return nil, errs.New(errs.Invalid, "the value is larger than %d KiB", maxSecret>>10)
	}
	return value, nil
}

func getSecrets(ctx context.Context, c *client, _ string, _ bool) ([]proto.Message, error) {
	r, err := c.secrets.ListSecrets(ctx, &provisionrv1.ListSecretsRequest{})
	return messages(r.GetSecrets(), err)
}

func secretView() view {
	return view{kind: "secret", name: namedBy[*provisionrv1.SecretInfo], wide: 4,
		header: []string{"NAME", "REVISION", "AGE", "POOLS"},
		row: rowOf(func(s *provisionrv1.SecretInfo) []any {
			return []any{s.GetMetadata().GetName(), dec(s.GetRevision()), age(s.GetMetadata().GetCreated()), orDash(strings.Join(s.GetPools(), ","))}
		})}
}
