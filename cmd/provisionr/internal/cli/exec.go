package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/errs"
)

// maxStdin is what a command may be given, in bytes.
const maxStdin = 1 << 20

type execFlags struct {
	stdin   bool
	timeout time.Duration
}

func newExec(o *options) *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:   "exec SELECTOR -- COMMAND [ARGUMENT...]",
		Short: "Run a command on machines, through their agents",
		Long: `Run a command on a machine (by slot, FQDN or id), on all of a pool (pool/NAME), or on all machines (all).

No shell is involved: use "sh -c" for one. With several machines each line begins with its machine. The exit code is
the worst one of all; 255 where the command could not be run.`,
		Example: `  provisionr exec zk-1 -- systemctl status zookeeper
  provisionr exec pool/zk -- sh -c 'echo srvr | nc localhost 2181'`,
		Args: cobra.MinimumNArgs(2),
		RunE: o.run(func(ctx context.Context, c *client, args []string) error {
			command := remoteCommand(args)
			if len(command) == 0 {
				return errs.New(errs.Invalid, "cannot run a command: none is given").WithHint("as provisionr exec %s -- uptime", args[0])
			}
			return runExec(ctx, c, o.streams, f, args[0], command)
		}),
	}
	// Flags of the remote command are not ours, with or without "--".
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVarP(&f.stdin, "stdin", "i", false, "give the input, at most 1 MiB, to the command")
	cmd.Flags().DurationVar(&f.timeout, "timeout", time.Minute, "kill the command after this time")
	return cmd
}

// remoteCommand is what follows the first argument, with or without a "--" between them.
func remoteCommand(args []string) []string {
	if len(args) > 1 && args[1] == "--" {
		return args[2:]
	}
	return args[1:]
}

func runExec(ctx context.Context, c *client, s Streams, f execFlags, selector string, command []string) error {
	request := &provisionrv1.ExecRequest{Selector: selector, Command: command, Timeout: durationpb.New(f.timeout)}
	if f.stdin {
		data, err := io.ReadAll(io.LimitReader(s.In, maxStdin+1))
		if err != nil {
			return errs.New(errs.Invalid, "cannot read the input: %w", err)
		}
		if len(data) > maxStdin {
			return errs.New(errs.Invalid, "cannot send the input: it is larger than 1 MiB")
		}
		request.Stdin = data
	}
	stream, err := c.machines.Exec(ctx, request)
	if err != nil {
		return err
	}
	many := selector == "all" || strings.HasPrefix(selector, "pool/")
	out, failed := newPrefixer(s.Out, many), newPrefixer(s.Err, many)
	defer out.flush()
	defer failed.flush()
	worst := 0
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if worst != 0 {
				return exit(worst)
			}
			return nil
		}
		if err != nil {
			return err
		}
		switch e := message.Event.(type) {
		case *provisionrv1.ExecResponse_Stdout:
			out.write(message.Machine, e.Stdout)
		case *provisionrv1.ExecResponse_Stderr:
			failed.write(message.Machine, e.Stderr)
		case *provisionrv1.ExecResponse_Exit:
			worst = max(worst, int(e.Exit))
		case *provisionrv1.ExecResponse_Error:
			worst = max(worst, 255)
			failed.write(message.Machine, []byte("provisionr: "+e.Error+"\n"))
		}
	}
}

// prefixer puts the machine's name before each of its lines, which come in pieces and mixed with those of others.
type prefixer struct {
	w     io.Writer
	on    bool
	rest  map[string][]byte
	order []string
}

// maxLine bounds a line that is kept back until it ends.
const maxLine = 64 << 10

func newPrefixer(w io.Writer, on bool) *prefixer {
	return &prefixer{w: w, on: on, rest: map[string][]byte{}}
}

func (p *prefixer) write(machine string, data []byte) {
	if !p.on {
		p.w.Write(data)
		return
	}
	rest, seen := p.rest[machine]
	if !seen {
		p.order = append(p.order, machine)
	}
	rest = append(rest, data...)
	for {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		if !found && len(rest) <= maxLine {
			break
		}
		fmt.Fprintf(p.w, "%s: %s\n", machine, line)
		rest = after
	}
	p.rest[machine] = rest
}

// flush writes lines that have no end.
func (p *prefixer) flush() {
	for _, machine := range p.order {
		if rest := p.rest[machine]; len(rest) > 0 {
			fmt.Fprintf(p.w, "%s: %s\n", machine, rest)
		}
	}
}
