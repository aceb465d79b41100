package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/spec"
	"github.com/provisionr/provisionr/internal/version"
)

// exit ends the program with a code; what there is to say has been said.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Exit codes beside 0 and those of remote commands.
const (
	exitError       exit = 1
	exitChanges     exit = 2
	exitInterrupted exit = 130
)

// New returns the root command with all client commands, and those of more.
func New(s Streams, more ...*cobra.Command) *cobra.Command {
	o := &options{streams: s}
	root := &cobra.Command{
		Use:   "provisionr",
		Short: "Keep pools of machines alike, and prove it",
		Long: `Provisionr keeps pools of machines matching one set of assumptions - packages, files, users, time, firewall,
services, forward and reverse DNS - and proves that they do.

  provisionr dev                          start everything on this host
  provisionr apply -f examples/web.yaml   make a pool, and watch it become ready
  provisionr verify                       have every machine prove its assumptions`,
		Version:       version.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetVersionTemplate("provisionr {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return errs.New(errs.Invalid, "cannot read the command line: %w", err).WithHint("see %s --help", cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&o.context, "context", os.Getenv("PROVISIONR_CONTEXT"), "context to use (default: the current one; PROVISIONR_CONTEXT)")
	flags.StringSliceVar(&o.servers, "server", nil, "HOST:PORT of servers, in place of the context's")
	root.AddGroup(&cobra.Group{ID: "main", Title: "Pools and machines:"}, &cobra.Group{ID: "cluster", Title: "Cluster and access:"})
	for _, c := range []func(*options) *cobra.Command{
		newPlan, newApply, newGet, newDescribe, newDelete, newScale, newVerify, newEvents, newExec, newSSH, newConsole, newMachine, newAgents, newAudit, newDNS, newValidate,
	} {
		add(root, "main", c(o))
	}
	for _, c := range []func(*options) *cobra.Command{newCluster, newVPN, newSecret, newToken, newUser, newContext} {
		add(root, "cluster", c(o))
	}
	for _, c := range more {
		add(root, "cluster", c)
	}
	root.AddCommand(newSchema(o), newVersion(o))
	return root
}

func add(root *cobra.Command, group string, c *cobra.Command) {
	c.GroupID = group
	root.AddCommand(c)
}

// Main runs the root command with the arguments, and returns the exit code. The first interrupt cancels the command's
// context; a second one kills the process.
func Main(root *cobra.Command, s Streams, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exit
	if errors.As(err, &code) {
		return int(code)
	}
	if err != nil {
		complain(s.Err, err)
		return int(exitError)
	}
	return 0
}

// complain tells a person about an error.
func complain(w io.Writer, err error) {
	var problems spec.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(w, problems.Error())
		fmt.Fprintf(w, "provisionr: cannot use the manifest: %s\n", counted(len(problems), "problem"))
		return
	}
	if strings.HasPrefix(err.Error(), "unknown command") {
		err = errs.New(errs.Invalid, "cannot read the command line: %w", err).WithHint("see provisionr --help")
	}
	fmt.Fprintf(w, "provisionr: %s\n", strings.TrimSpace(err.Error()))
	if hint := errs.HintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// counted writes "1 problem" or "2 problems".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// group is a command that only has commands below it.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(commands...)
	return c
}
