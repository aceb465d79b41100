package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Start runs the outer helper in the cgroup of aux (an open cgroup2 directory) and waits until /sbin/init was executed.
// The machine writes its early console to console. When Start fails, processes may be left in the machine's cgroups: the
// caller kills them. When ctx ends the outer helper is killed, which may leave a started machine: the record tells.
func Start(ctx context.Context, spec Spec, aux, console *os.File) error {
	input, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe", Command, "outer")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stderr = &stderr
	cmd.ExtraFiles = []*os.File{console}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// A session of its own: no signal of the server's terminal reaches the machine.
		Setsid:       true,
		Unshareflags: syscall.CLONE_NEWNS, // os/exec makes it private
		UseCgroupFD:  true,
		CgroupFD:     int(aux.Fd()),
	}
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			return fmt.Errorf("cannot start container: %s", text)
		}
		return fmt.Errorf("cannot start container: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}
