package vpn

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/agent/host/hosttest"
)

// programs runs the real program as a unit of type notify.
type programs struct {
	*hosttest.Units
	path string
	cmd  *exec.Cmd
}

func (p *programs) Program(context.Context, string) (string, error) { return p.path, nil }

func (p *programs) Restart(ctx context.Context, name string) error {
	if err := p.end(); err != nil {
		return err
	}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/run/notify", Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() {
		l.Close()
		os.Remove("/run/notify")
	}()
	p.cmd = exec.Command(p.path, Link)
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=/run/notify")
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	b := make([]byte, 64)
	if n, err := l.Read(b); err != nil || string(b[:n]) != "READY=1" {
		return fmt.Errorf("notified of %q, %w", b[:n], err)
	}
	return p.Units.Restart(ctx, name)
}

func (p *programs) Stop(ctx context.Context, name string) error {
	if err := p.end(); err != nil {
		return err
	}
	return p.Units.Stop(ctx, name)
}

// end has the program end as systemd does.
func (p *programs) end() error {
	if p.cmd == nil {
		return nil
	}
	cmd := p.cmd
	p.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the program did not end cleanly: %w", err)
	}
	return nil
}
