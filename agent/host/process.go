package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// searchPath is the PATH of every command, and where a command without a slash is looked for.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const (
	defaultTimeout = time.Minute
	// maxOutput is how much of each output stream a Result keeps: its end.
	maxOutput = 64 << 10
	// waitDelay bounds the wait for output after the command itself ended: a daemon that it left behind may hold the pipe.
	waitDelay = 2 * time.Second
)

// Processes runs real programs: the Commands of a real machine. The zero value is ready.
type Processes struct{}

// Run implements Commands.
func (p Processes) Run(ctx context.Context, c Command) (Result, error) {
	var stdout, stderr tail
	exit, err := p.Stream(ctx, c, &stdout, &stderr)
	return Result{Exit: exit, Stdout: stdout.bytes(), Stderr: stderr.bytes()}, err
}

// Stream is Run with output handed to writers as it comes. A writer that blocks holds the command back; one that fails
// ends it. A command that a signal ended has exit 128 plus the signal, as in a shell.
func (Processes) Stream(ctx context.Context, c Command, stdout, stderr io.Writer) (int, error) {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	timed, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	path, err := lookPath(c.Path)
	if err != nil {
		return 0, fmt.Errorf("cannot run %s: %w", c.Path, err)
	}
	cmd := exec.CommandContext(timed, path, c.Args...)
	cmd.Args[0] = c.Path
	cmd.Env = append([]string{"PATH=" + searchPath, "LANG=C.UTF-8", "HOME=/root"}, c.Env...)
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	start := cmd.Start
	if c.Unsynced {
		start = func() error { return startUnsynced(cmd) }
	}
	if err = start(); err == nil {
		err = cmd.Wait()
	}
	var exited *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("cannot finish %s: %w", c.Path, ctx.Err())
	case timed.Err() != nil:
		return 0, fmt.Errorf("cannot finish %s within %s: killed with its process group: %w", c.Path, timeout, timed.Err())
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return 0, nil
	case errors.As(err, &exited):
		if ws, ok := exited.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return exited.ExitCode(), nil
	}
	return 0, fmt.Errorf("cannot run %s: %w", c.Path, err)
}

// lookPath finds a program on searchPath, whatever PATH the agent itself was started with.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for dir := range strings.SplitSeq(searchPath, ":") {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// tail keeps the last maxOutput bytes that were written to it, and at most twice as many in memory.
type tail struct {
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > maxOutput {
		p = p[len(p)-maxOutput:]
	}
	if len(t.buf)+len(p) > 2*maxOutput {
		t.buf = append(t.buf[:0], t.bytes()...)
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

func (t *tail) bytes() []byte {
	return t.buf[max(0, len(t.buf)-maxOutput):]
}
