package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/cmd/provisionr/internal/cli"
	"github.com/provisionr/provisionr/internal/errs"
)

// restartAfter is how long a server that ended stays down before it is started anew.
const restartAfter = time.Second

// runChildren runs each server as a process of its own and starts anew those that end, until ctx ends. Servers that are
// members already are started together, for none of them serves without a majority; new ones join one after the other.
func (f *devFlags) runChildren(ctx context.Context, s cli.Streams, self string) error {
	var members, joining []*serverFlags
	for n := 1; n <= f.servers; n++ {
		if m := f.member(n); m.joined() {
			members = append(members, m)
		} else {
			joining = append(joining, m)
		}
	}
	if len(members) > 0 && !f.member(1).joined() {
		return errs.New(errs.Conflict, "cannot start: the first server of %s is missing", f.data).
			WithHint("remove the cluster with `provisionr dev down` and begin anew")
	}
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	// Before the output is closed, every child must have ended.
	defer running.Wait()
	defer stop()
	failed := make(chan error, f.servers)
	start := func(m *serverFlags, env ...string) (*child, error) {
		if m.name != firstServer {
			if err := f.awaitGateway(ctx, failed); err != nil {
				return nil, err
			}
		}
		if err := os.Remove(m.readyFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errs.New(errs.Internal, "cannot start %s: %w", m.name, err)
		}
		c := &child{name: m.name, ready: m.readyFile(), self: self, args: m.args(), env: append(os.Environ(), env...)}
		running.Go(func() {
			if err := c.supervise(ctx, s); err != nil {
				failed <- err
			}
		})
		return c, nil
	}
	var started []*child
	for _, m := range members {
		c, err := start(m)
		if err != nil {
			return err
		}
		started = append(started, c)
	}
	for _, c := range started {
		if err := c.await(ctx, failed); err != nil {
			return err
		}
	}
	for _, m := range joining {
		var env []string
		if m.name != firstServer {
			token, err := f.joinToken(ctx, self)
			if err != nil {
				return err
			}
			m.joinAddress = f.api()
			// Other users of the host see arguments.
			env = []string{"PROVISIONR_JOIN_TOKEN=" + token}
		}
		c, err := start(m, env...)
		if err != nil {
			return err
		}
		if err := c.await(ctx, failed); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := f.ready(s); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// awaitGateway waits for the gateway of the machines' network, which the first server makes and all listen on.
func (f *devFlags) awaitGateway(ctx context.Context, failed <-chan error) error {
	gateway := f.gateway()
	return await(ctx, failed, func() bool {
		if gateway == "" {
			return true
		}
		addresses, err := net.InterfaceAddrs()
		return err == nil && slices.ContainsFunc(addresses, func(a net.Addr) bool {
			return strings.HasPrefix(a.String(), gateway+"/")
		})
	})
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
	if m.joinAddress != "" {
		args = append(args, "--join-address", m.joinAddress)
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

// child is a server as a process of its own.
type child struct {
	name, ready string
	self        string
	args, env   []string
	// served says that the server was ready once.
	served atomic.Bool
}

// supervise runs the server again and again until ctx ends. One that ends by itself before it was ever ready would do so
// again: that is its error.
func (c *child) supervise(ctx context.Context, s cli.Streams) error {
	for {
		cmd := exec.CommandContext(ctx, c.self, c.args...)
		cmd.Env, cmd.Stdout, cmd.Stderr = c.env, s.Out, s.Err
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = stopTimeout
		// A server must not outlive dev, or the next dev would find its ports taken.
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		err := runLocked(cmd)
		if ctx.Err() != nil {
			return nil
		}
		if killed := cmd.ProcessState != nil && !cmd.ProcessState.Exited(); !killed && !c.served.Load() {
			return errs.New(errs.Internal, "the server %s ended before it served: %v", c.name, err)
		}
		fmt.Fprintf(s.Err, "server %s ended (%v); starting it again\n", c.name, err)
		select {
		case <-time.After(restartAfter):
		case <-ctx.Done():
			return nil
		}
	}
}

// await waits until the server is ready; it returns the error of any server that ended for good before.
func (c *child) await(ctx context.Context, failed <-chan error) error {
	err := await(ctx, failed, func() bool { return exists(c.ready) })
	c.served.Store(err == nil)
	return err
}

// runLocked runs the command from one thread, whose end would count as the parent's for Pdeathsig.
func runLocked(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// await waits until done says so or ctx ends.
func await(ctx context.Context, failed <-chan error, done func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
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
