package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/contexts"
	"github.com/provisionr/provisionr/internal/errs"
)

type sshFlags struct {
	user, identity string
}

func newSSH(o *options) *cobra.Command {
	var f sshFlags
	cmd := &cobra.Command{
		Use:   "ssh MACHINE [-- COMMAND...]",
		Short: "Log in to a machine with ssh",
		Long: `Log in to a machine (by slot, FQDN or id) with the system's ssh.

The user is the first admin account of the machine's pool; the key is the context's, else ssh's own choice. Host keys
are remembered by the machine's id, so that a replacement with the same name or address causes no warning and no doubt.`,
		Args: cobra.MinimumNArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			return runSSH(ctx, c, o.streams, f, args[0], remoteCommand(args))
		}),
		ValidArgsFunction: o.completeNames(resourceOf("machines")),
	}
	cmd.Flags().StringVarP(&f.user, "login", "l", "", "user to log in as")
	cmd.Flags().StringVarP(&f.identity, "identity", "i", "", "private key file")
	return cmd
}

func runSSH(ctx context.Context, c *client, s Streams, f sshFlags, name string, command []string) error {
	m, err := c.machines.GetMachine(ctx, &provisionrv1.GetMachineRequest{Name: name})
	if err != nil {
		return err
	}
	if m.GetStatus().GetAddress() == "" {
		return errs.New(errs.Conflict, "cannot log in to %s: it has no address yet", name).
			WithHint("it is %s", enumText(m.GetStatus().GetPhase()))
	}
	if f.user == "" {
		if f.user, err = adminOf(ctx, c, m.GetSpec().GetPool()); err != nil {
			return err
		}
	}
	if f.identity == "" {
		f.identity = c.context.Path(c.context.SSHKey)
	}
	known, err := knownHosts(c.context.Name)
	if err != nil {
		return err
	}
	args := []string{
		"-o", "HostKeyAlias=" + m.GetMetadata().GetName(),
		"-o", "UserKnownHostsFile=" + known,
		"-o", "StrictHostKeyChecking=accept-new",
		"-l", f.user,
	}
	if f.identity != "" {
		args = append(args, "-i", f.identity, "-o", "IdentitiesOnly=yes")
	}
	args = append(append(args, "--", m.GetStatus().GetAddress()), command...)
	return passOn(ctx, s, "ssh", args)
}

// adminOf returns the first admin account of a pool.
func adminOf(ctx context.Context, c *client, pool string) (string, error) {
	p, err := c.pools.GetPool(ctx, &provisionrv1.GetPoolRequest{Name: pool})
	if err != nil {
		return "", err
	}
	for _, u := range p.GetSpec().GetUsers() {
		if u.Admin && !u.Absent {
			return u.Name, nil
		}
	}
	return "", errs.New(errs.NotFound, "cannot log in: pool %s has no admin account", pool).
		WithHint("declare one in spec.users, give -l USER, or use `provisionr exec`")
}

// knownHosts returns the context's file of host keys, with its folder made.
func knownHosts(contextName string) (string, error) {
	path, err := contexts.DefaultPath()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(path), "known_hosts.d")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", errs.New(errs.Invalid, "cannot remember host keys: %w", err)
	}
	return filepath.Join(dir, filepath.Base(contextName)), nil
}

// passOn runs a program with our streams and ends with its exit code.
func passOn(ctx context.Context, s Streams, program string, args []string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.In, s.Out, s.Err
	if err := cmd.Start(); err != nil {
		return errs.New(errs.NotFound, "cannot run %s: %w", program, err).WithHint("install it, as with `apt install openssh-client`")
	}
	// ssh gets Ctrl-C from the terminal itself and knows better what to do with it.
	err := cmd.Wait()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		if ended.ExitCode() < 0 || ctx.Err() != nil {
			return exitInterrupted
		}
		return exit(ended.ExitCode())
	}
	return err
}
