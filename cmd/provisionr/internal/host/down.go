package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/cmd/provisionr/internal/cli"
	"github.com/provisionr/provisionr/internal/contexts"
	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server"
)

// stopTimeout is how long the servers may take to stop before they are killed.
const stopTimeout = 20 * time.Second

func newDown(s cli.Streams) *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the cluster and remove its machines, its network and its data",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := filepath.Abs(data)
			if err != nil {
				return errs.New(errs.Internal, "cannot find the data directory: %w", err)
			}
			return down(cmd.Context(), data, s)
		},
	}
	cmd.Flags().StringVar(&data, "data", "provisionr-dev", "data directory")
	return cmd
}

// down removes a cluster. It may be repeated, and needs nothing to be running or whole.
func down(ctx context.Context, data string, s cli.Streams) error {
	pidFiles, err := filepath.Glob(filepath.Join(data, "s*", server.LockFile))
	if err != nil {
		return errs.New(errs.Internal, "cannot look for servers: %w", err)
	}
	// The parent first, for it starts its servers anew.
	for _, file := range append([]string{filepath.Join(data, pidFile)}, pidFiles...) {
		if err := stop(ctx, file, data); err != nil {
			return err
		}
	}
	if err := cleanHost(ctx, data, s); err != nil {
		return err
	}
	if err := removeContexts(data); err != nil {
		return err
	}
	if err := os.RemoveAll(data); err != nil {
		return errs.New(errs.Internal, "cannot remove the data directory: %w", err)
	}
	fmt.Fprintf(s.Out, "removed the cluster of %s\n", data)
	return nil
}

// stop ends the process that a file names, if it is one of ours.
func stop(ctx context.Context, file, data string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !ours(pid, data) {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || !ours(pid, data) {
		return nil
	}
	if err != nil {
		return errs.New(errs.Internal, "cannot stop process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, signal, nil, 0); errors.Is(err, unix.ESRCH) {
			return nil
		} else if err != nil {
			return errs.New(errs.Internal, "cannot stop process %d: %w", pid, err)
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(poll, int(stopTimeout.Milliseconds())); n > 0 || ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errs.New(errs.Timeout, "process %d does not end", pid)
}

// ours reports whether the process is a server on the data directory, and not one that got its id later.
func ours(pid int, data string) bool {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || !strings.HasPrefix(filepath.Base(link), "provisionr") {
		return false
	}
	if text, err := os.ReadFile(filepath.Join(data, pidFile)); err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(pid) {
		return pid != os.Getpid()
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(command), data)
}

// cleanHost removes what providers made on this host.
func cleanHost(ctx context.Context, data string, s cli.Streams) error {
	identities, err := filepath.Glob(filepath.Join(data, "s*", "identity", "member.json"))
	if err != nil {
		return errs.New(errs.Internal, "cannot look for servers: %w", err)
	}
	for _, file := range identities {
		var member struct{ Cluster string }
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &member)
		}
		if err != nil {
			return errs.New(errs.Internal, "cannot read %s: %w", file, err)
		}
		dir := filepath.Dir(filepath.Dir(file))
		if err := server.CleanHost(ctx, dir, member.Cluster, slog.New(slog.NewTextHandler(s.Err, nil))); err != nil {
			return err
		}
	}
	return nil
}

// removeContexts takes the contexts out of the command line's file that use credentials below the data directory.
func removeContexts(data string) error {
	path, err := contexts.DefaultPath()
	if err != nil {
		return err
	}
	file, err := contexts.Load(path)
	if err != nil {
		return err
	}
	for _, c := range file.Contexts {
		if strings.HasPrefix(c.Key, data+string(filepath.Separator)) {
			if err := contexts.Remove(path, c.Name); err != nil {
				return err
			}
			// The host keys of its machines, as `provisionr ssh` remembers them.
			known := filepath.Join(filepath.Dir(path), "known_hosts.d", filepath.Base(c.Name))
			if err := os.Remove(known); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return errs.New(errs.Internal, "cannot forget host keys: %w", err)
			}
		}
	}
	return nil
}
