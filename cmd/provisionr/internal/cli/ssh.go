package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/contexts"
	"github.com/provisionr/provisionr/internal/errs"
)

type sshFlags struct {
	user, identity string
	vpn            bool
	ttl            time.Duration
}

func newSSH(o *options) *cobra.Command {
	var f sshFlags
	cmd := &cobra.Command{
		Use:   "ssh [USER@]MACHINE [-- COMMAND...]",
		Short: "Log in to a machine with ssh",
		Long: `Log in to a machine (by slot, FQDN or id) with the system's ssh.

A new key is made for each login, and certified by the cluster for a short time under your name and role: no key has to be on
any machine or on yours. Host keys are known through the cluster's authority, or as the machine's agent has reported them, so
that ssh never asks. The user is the account of your name in the machine's pool, else its first one that your role may use.

With -i your own key is used instead. It is the context's too where the cluster certifies none.`,
		Args: cobra.MinimumNArgs(1),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			return runSSH(ctx, c, o.streams, f, args[0], remoteCommand(args))
		}),
		ValidArgsFunction: o.completeNames(resourceOf("machines")),
	}
	cmd.Flags().StringVarP(&f.user, "login", "l", "", "user to log in as")
	cmd.Flags().StringVarP(&f.identity, "identity", "i", "", "private key file")
	cmd.Flags().BoolVar(&f.vpn, "vpn", false, "use the machine's address in its VPN")
	cmd.Flags().DurationVar(&f.ttl, "ttl", 0, "how long the certificate is good for (default: the server's)")
	cmd.AddCommand(newSSHConfig(o), newSSHSign(o))
	return cmd
}

func runSSH(ctx context.Context, c *client, s Streams, f sshFlags, name string, command []string) error {
	if user, machine, ok := strings.Cut(name, "@"); ok {
		f.user, name = user, machine
	}
	m, err := c.machines.GetMachine(ctx, &provisionrv1.GetMachineRequest{Name: name})
	if err != nil {
		return err
	}
	address, err := sshAddress(m, name, f.vpn)
	if err != nil {
		return err
	}
	// The key is good for one login, and is on disk no longer than that.
	dir, err := os.MkdirTemp("", "provisionr-ssh-")
	if err != nil {
		return errs.New(errs.Internal, "cannot make a folder for the key: %w", err)
	}
	defer os.RemoveAll(dir)
	args, err := hostArgs(ctx, c, dir, m)
	if err != nil {
		return err
	}
	var principals []string
	if f.identity == "" {
		if principals, err = certify(ctx, c, dir, f.ttl); err != nil {
			return err
		}
		f.identity = c.context.Path(c.context.SSHKey)
	}
	if principals != nil {
		args = append(args, "-i", filepath.Join(dir, keyFile), "-o", "CertificateFile="+filepath.Join(dir, certificateFile))
	}
	if f.identity != "" {
		args = append(args, "-i", f.identity)
	}
	if principals != nil || f.identity != "" {
		args = append(args, "-o", "IdentitiesOnly=yes")
	}
	if f.user == "" {
		if f.user, err = accountOf(ctx, c, m.GetSpec().GetPool(), principals); err != nil {
			return err
		}
	}
	args = append(append(args, "-l", f.user, "--", address), command...)
	return passOn(ctx, s, "ssh", args)
}

// sshAddress is where a machine is reached.
func sshAddress(m *provisionrv1.Machine, name string, vpn bool) (string, error) {
	status := m.GetStatus()
	switch {
	case vpn && status.GetVpnAddress() == "":
		return "", errs.New(errs.Conflict, "cannot log in to %s: it has no address in a VPN", name).WithHint("is its pool attached to one? See `provisionr get pools -o yaml`")
	case vpn:
		return status.GetVpnAddress(), nil
	case status.GetAddress() != "":
		return status.GetAddress(), nil
	case status.GetAddress6() != "":
		return status.GetAddress6(), nil
	}
	return "", errs.New(errs.Conflict, "cannot log in to %s: it has no address yet", name).WithHint("it is %s", enumText(status.GetPhase()))
}

// hostArgs has ssh know the machine's host key: by the authorities of the cluster, and by what the agent has said of its host
// keys. An agent that says nothing of its machine is of an older version and certifies no keys: they are remembered by the
// machine's id then.
func hostArgs(ctx context.Context, c *client, dir string, m *provisionrv1.Machine) ([]string, error) {
	lines, err := authorityLines(ctx, c)
	if err != nil {
		return nil, err
	}
	alias := m.GetSpec().GetFqdn()
	for _, key := range m.GetStatus().GetFacts().GetSshHostKeys() {
		lines = append(lines, alias+" "+clean(key))
	}
	if len(lines) == 0 || alias == "" || m.GetStatus().GetFacts() == nil {
		known, err := knownHosts(c.context.Name)
		if err != nil {
			return nil, err
		}
		return []string{
			"-o", "HostKeyAlias=" + m.GetMetadata().GetName(), "-o", "UserKnownHostsFile=" + known, "-o", "StrictHostKeyChecking=accept-new",
		}, nil
	}
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, errs.New(errs.Internal, "cannot write host keys: %w", err)
	}
	return []string{
		"-o", "HostKeyAlias=" + alias, "-o", "UserKnownHostsFile=" + known, "-o", "GlobalKnownHostsFile=none",
		"-o", "StrictHostKeyChecking=yes", "-o", "CheckHostIP=no", "-o", "UpdateHostKeys=no",
	}, nil
}

// accountOf returns the account to log in as: the one of the caller's name, else the first that its roles are good for. Without
// a certificate it is the first admin account.
func accountOf(ctx context.Context, c *client, pool string, principals []string) (string, error) {
	p, err := c.pools.GetPool(ctx, &provisionrv1.GetPoolRequest{Name: pool})
	if err != nil {
		return "", err
	}
	var admin, other string
	for _, u := range p.GetSpec().GetUsers() {
		switch {
		case u.Absent:
		case len(principals) > 0 && u.Name == principals[0]:
			return u.Name, nil
		case u.Admin && admin == "":
			admin = u.Name
		case !u.Admin && other == "":
			other = u.Name
		}
	}
	if admin != "" && (len(principals) == 0 || slices.Contains(principals, "role:admin")) {
		return admin, nil
	}
	if other != "" && len(principals) > 0 {
		return other, nil
	}
	return "", errs.New(errs.NotFound, "cannot log in: pool %s has no account that you may use", pool).
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
