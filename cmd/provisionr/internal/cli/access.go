package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/contexts"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/pki"
	"github.com/provisionr/provisionr/internal/spec"
)

func newToken(o *options) *cobra.Command {
	var (
		user, role string
		ttl        time.Duration
		list       output
	)
	create := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token that lets its bearer act as a user",
		Long:  "Make a token that lets its bearer act as a user, and print it: it is never shown again.",
		Args:  cobra.ExactArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			r, err := roleNamed(role)
			if err != nil {
				return err
			}
			request := &provisionrv1.CreateTokenRequest{Name: args[0], User: user, Role: r}
			if ttl > 0 {
				request.Ttl = durationpb.New(ttl)
			}
			made, err := c.access.CreateToken(ctx, request)
			if err != nil {
				return err
			}
			fmt.Fprintln(o.streams.Out, made.Secret)
			return nil
		}),
	}
	create.Flags().StringVar(&user, "user", "", "user to act as (default: yourself)")
	create.Flags().StringVar(&role, "role", "viewer", "viewer, operator or admin; at most the user's own")
	create.Flags().DurationVar(&ttl, "ttl", 0, "how long it is good for (default: the server's)")
	all := &cobra.Command{
		Use:   "list",
		Short: "List tokens, without their secrets",
		Args:  cobra.NoArgs,
		RunE: o.run(func(ctx context.Context, c *client, _ []string) error {
			return runGet(ctx, c, o.streams, resourceOf("tokens"), getFlags{output: list}, nil)
		}),
	}
	list.register(all)
	remove := &cobra.Command{
		Use:               "delete NAME",
		Short:             "Delete a token: its bearers are refused from now on",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("tokens")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			if _, err := c.access.DeleteToken(ctx, &provisionrv1.DeleteTokenRequest{Name: args[0]}); err != nil {
				return err
			}
			fmt.Fprintf(o.streams.Out, "deleted token %s\n", args[0])
			return nil
		}),
	}
	return group("token", "Manage API tokens", create, all, remove)
}

func roleNamed(name string) (provisionrv1.Role, error) {
	values := provisionrv1.Role_ROLE_VIEWER.Descriptor().Values()
	for i := range values.Len() {
		if v := values.Get(i); v.Number() != 0 && spec.EnumName(v) == name {
			return provisionrv1.Role(v.Number()), nil
		}
	}
	return 0, errs.New(errs.Invalid, "there is no role %q", name).WithHint("viewer, operator or admin")
}

type issueFlags struct {
	dir, context string
	ttl          time.Duration
}

func newUser(o *options) *cobra.Command {
	var f issueFlags
	issue := &cobra.Command{
		Use:   "issue-cert USER",
		Short: "Make a key and have a client certificate for a user signed",
		Long: `Make a key and have a client certificate for an existing user signed. The key never leaves this host.

USER.pem, USER.key and ca.pem are written; with --add-context they become a context of that name.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.completeNames(resourceOf("users")),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			return runIssue(ctx, c, o.streams, f, args[0])
		}),
	}
	issue.Flags().StringVar(&f.dir, "out", ".", "folder for the files")
	issue.Flags().StringVar(&f.context, "add-context", "", "also add a context of this name")
	issue.Flags().DurationVar(&f.ttl, "ttl", 90*24*time.Hour, "how long the certificate is good for")
	return group("user", "Manage client certificates; users are applied as manifests", issue)
}

func runIssue(ctx context.Context, c *client, s Streams, f issueFlags, user string) error {
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	csr, err := pki.NewCSR(key)
	if err != nil {
		return err
	}
	encoded, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	ca, err := text(c.context.CA, c.context.Path(c.context.CAFile), "CA")
	if err != nil {
		return err
	}
	issued, err := c.access.IssueCertificate(ctx, &provisionrv1.IssueCertificateRequest{User: user, Csr: csr, Ttl: durationpb.New(f.ttl)})
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return errs.New(errs.Invalid, "cannot write the certificate: %w", err)
	}
	base := filepath.Join(dir, filepath.Base(user))
	for _, file := range []struct {
		path string
		data []byte
	}{{base + ".key", encoded}, {base + ".pem", []byte(issued.Certificate)}, {filepath.Join(dir, "ca.pem"), ca}} {
		if err := pki.WriteFile(file.path, file.data); err != nil {
			return errs.New(errs.Invalid, "cannot write the certificate: %w", err)
		}
		fmt.Fprintln(s.Out, file.path)
	}
	if f.context == "" {
		return nil
	}
	path, err := contexts.DefaultPath()
	if err != nil {
		return err
	}
	return contexts.Set(path, contexts.Context{
		Name: f.context, Servers: c.context.Servers, Cluster: c.context.Cluster, CAFile: filepath.Join(dir, "ca.pem"),
		Certificate: base + ".pem", Key: base + ".key",
	}, false)
}
