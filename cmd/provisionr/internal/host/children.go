package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/cmd/provisionr/internal/cli"
	"github.com/provisionr/provisionr/internal/errs"
)

// restartAfter is how long a server that ended stays down before it is started anew.
const restartAfter = time.Second

// runChildren runs each server as a process of its own and starts anew those that end, until ctx ends.
func (f *devFlags) runChildren(ctx context.Context, s cli.Streams) error {
	self, err := os.Executable()
	if err != nil {
		return errs.New(errs.Internal, "cannot find this program: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	var children sync.WaitGroup
	// Before the output is closed, every child must have ended.
	defer children.Wait()
	defer stop()
	for n := 1; n <= f.servers; n++ {
		member := f.member(n)
		args, env := member.args(), os.Environ()
		if n > 1 && !exists(filepath.Join(member.data, "identity", "member.json")) {
			token, err := f.joinToken(ctx, self)
			if err != nil {
				return err
			}
			// Other users of the host see arguments.
			args, env = append(args, "--join-address", f.api()), append(env, "PROVISIONR_JOIN_TOKEN="+token)
		}
		if err := os.Remove(filepath.Join(member.data, "ready")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.Internal, "cannot start %s: %w", member.name, err)
		}
		failed := make(chan error, 1)
		children.Go(func() { failed <- supervise(ctx, s, self, args, env) })
		if err := awaitFile(ctx, filepath.Join(member.data, "ready"), failed); err != nil {
			return err
		}
	}
	if err := f.ready(s); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// args are the command line of `server`.
func (m *serverFlags) args() []string {
	args := []string{
		"server", "--name", m.name, "--data", m.data, "--advertise", m.advertise, "--cluster", m.clusterName,
		"--domain", m.domain, "--listen", strings.Join(m.listen, ","), "--cache", m.cache, "--local-cidr", m.cidr,
		"--api-port", port(m.ports.API), "--agent-port", port(m.ports.Agent), "--member-port", port(m.ports.Member), "--dns-port", port(m.ports.DNS),
	}
	if m.agentDir != "" {
		args = append(args, "--agent-dir", m.agentDir)
	}
	if m.bootstrap {
		args = append(args, "--bootstrap")
	}
	if m.local {
		args = append(args, "--local")
	}
	for network, host := range m.networkHosts {
		args = append(args, "--network-host", network+"="+host)
	}
	return args
}

func port(p uint16) string { return strconv.Itoa(int(p)) }

// joinToken has the cluster make a token, as its administrator would.
func (f *devFlags) joinToken(ctx context.Context, self string) (string, error) {
	cmd := exec.CommandContext(ctx, self, "--context", f.name, "cluster", "join-token")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = errors.New(strings.TrimSpace(string(exit.Stderr)))
		}
		return "", errs.New(errs.Unavailable, "cannot get a join token: %w", err)
	}
	fields := strings.Fields(string(out))
	i := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, "pvj_") })
	if i < 0 {
		return "", errs.New(errs.Internal, "cannot get a join token: none was printed")
	}
	return fields[i], nil
}

// supervise runs a server again and again until ctx ends. One that fails at its first start ends it.
func supervise(ctx context.Context, s cli.Streams, self string, args, env []string) error {
	for first := true; ; first = false {
		cmd := exec.CommandContext(ctx, self, args...)
		cmd.Env, cmd.Stdout, cmd.Stderr = env, s.Out, s.Err
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = stopTimeout
		// A server must not outlive dev, or the next dev would find its ports taken.
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		began := time.Now()
		err := runLocked(cmd)
		if ctx.Err() != nil {
			return nil
		}
		if first && time.Since(began) < restartAfter {
			return errs.New(errs.Internal, "the server %s: %w", args[2], err)
		}
		fmt.Fprintf(s.Err, "server %s ended (%v); starting it again\n", args[2], err)
		select {
		case <-time.After(restartAfter):
		case <-ctx.Done():
			return nil
		}
	}
}

// runLocked runs the command from one thread, whose end would count as the parent's for Pdeathsig.
func runLocked(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// awaitFile waits until the file is there.
func awaitFile(ctx context.Context, path string, failed <-chan error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !exists(path) {
		select {
		case <-tick.C:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
