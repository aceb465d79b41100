// Command provisionr-agent keeps one machine as its pool says, and proves that it is.
//
// Started without arguments, as by systemd, it joins its cluster and converges until it gets SIGTERM. Its log goes to
// standard error. Three commands are for people on the machine:
//
//	provisionr-agent status   prints the last run and the newest proofs
//	provisionr-agent check    compares the machine with its desired state, changes nothing; exit 2 where it differs
//	provisionr-agent undo     takes back a change, or an upgrade of the agent, that is not confirmed yet; watchdogs run it,
//	                         and with boot the agent's unit does while an upgrade is not
//
// The agent says itself how many processors it may use: that the runtime follows changes of its control group costs a start.
//
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"google.golang.org/grpc/grpclog"

	"github.com/provisionr/provisionr/agent"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/programs"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/internal/version"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitDiffer = 2
)

const (
	// maxProcs bounds the threads that run Go code: the agent must not compete with what the machine is for.
	maxProcs = 2
	// gcPercent and memoryLimit trade CPU time, of which an idle agent uses next to none, for memory.
	gcPercent   = 40
	memoryLimit = 16 << 20
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// untilEnd is for what must not be left half done when the process is told to end. To listen costs threads, so what only
// looks just ends.
func untilEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
}

// stay sets the runtime for a process that stays.
func stay() {
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), maxProcs))
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
}

// oneShot sets the runtime for a process that is about to end: it gains nothing from collecting garbage before the limit
// on memory. To allow it a single processor would cost more than it saves: the runtime takes the processor from each call
// that blocks, and gives it to another thread.
func oneShot() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("provisionr-agent", flag.ContinueOnError)
	flags.SetOutput(stderr)
	root := flags.String("root", "/", "directory that all files of the machine are below")
	repeat := flags.Int("repeat", 0, "with check: do it this many times more, and print what each costs inside an agent that runs")
	showVersion := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: provisionr-agent [flags] [status | check | undo [change | upgrade | boot]]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return exitFailed
	}
	if *showVersion {
		fmt.Fprintln(stdout, version.Version)
		return exitOK
	}
	h, units := host.Real(*root)
	defer units.Close()
	var err error
	switch flags.Arg(0) {
	case "":
		stay()
		ctx, stop := untilEnd(ctx)
		defer stop()
		err = keep(ctx, &h, stderr)
	case "status":
		var s *agent.Status
		if s, err = agent.ReadStatus(h); err == nil {
			err = errors.Join(s.Print(stdout), agent.PrintCounters(&h, stdout))
		}
	case "check":
		if *repeat > 0 {
			stay()
		} else {
			oneShot()
		}
		var right bool
		if right, err = agent.Check(ctx, &h, stdout); err == nil && *repeat > 0 {
			err = agent.Repeat(ctx, &h, *repeat, stdout)
		}
		if err == nil && !right {
			return exitDiffer
		}
	case "undo":
		ctx, stop := untilEnd(ctx)
		defer stop()
		var undone []string
		undone, err = agent.Undo(ctx, &h, flags.Arg(1))
		for _, what := range undone {
			fmt.Fprintln(stdout, "undone:", what)
		}
	default:
		flags.Usage()
		return exitFailed
	}
	if err != nil {
		fmt.Fprintln(stderr, "provisionr-agent:", err)
		if hint := errs.HintOf(err); hint != "" {
			fmt.Fprintln(stderr, "hint:", hint)
		}
		return exitFailed
	}
	return exitOK
}

// keep runs the agent. journald adds the time to each line.
func keep(ctx context.Context, h *host.Host, stderr io.Writer) error {
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	// What gRPC has to say reaches the link as errors.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	parts, err := agent.RealParts(h, logger)
	if err != nil {
		return err
	}
	// Not below the machine's root: it is this very process.
	program, err := programs.Sum(&host.Host{Root: "/"}, "/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot read the agent's own program: %w", err)
	}
	a, err := agent.New(agent.Config{Host: h, Parts: parts, Version: version.Version, Program: program, Logger: logger})
	if err != nil {
		return err
	}
	logger.Info("agent started", "version", version.Version)
	defer logger.Info("agent stopped")
	return a.Run(ctx)
}
