package pkg

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/internal/errs"
)

const (
	lockPath  = "/var/lib/dpkg/lock-frontend"
	lockEvery = 200 * time.Millisecond
	maxComm   = 64
)

// lock takes the lock that frontends of dpkg hold for a whole transaction (dpkg(1), DPKG_FRONTEND_LOCKED), and waits for it.
// It is a lock of fcntl(2): it ends with the agent, however that ends.
func (a *apt) lock(ctx context.Context) (unlock func() error, err error) {
	dir, base, err := conffile.Parent(a.host, lockPath, false)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the package manager: %w", err)
	}
	defer dir.Close()
	file, err := dir.OpenFile(base, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the package manager: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, a.limits.lock)
	defer cancel()
	for tick := time.NewTicker(lockEvery); ; {
		want := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
		err := syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &want)
		if err == nil {
			tick.Stop()
			return file.Close, nil
		}
		if err != syscall.EAGAIN && err != syscall.EACCES && err != syscall.EINTR {
			tick.Stop()
			file.Close()
			return nil, fmt.Errorf("cannot lock the package manager: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			by := a.holder(file)
			file.Close()
			return nil, errs.New(errs.Unavailable, "cannot lock the package manager within %s: %s", a.limits.lock, by).WithHint("it is tried again; wait for that program, or end it")
		}
	}
}

// holder says who has the lock.
func (a *apt) holder(file *os.File) string {
	asked := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(file.Fd(), syscall.F_GETLK, &asked); err != nil || asked.Type == syscall.F_UNLCK || asked.Pid <= 0 {
		return "another program holds " + lockPath
	}
	name, err := conffile.Read(a.host, fmt.Sprintf("/proc/%d/comm", asked.Pid), maxComm)
	if err != nil || len(name) == 0 {
		return fmt.Sprintf("process %d holds %s", asked.Pid, lockPath)
	}
	return fmt.Sprintf("%s (process %d) holds %s", strings.TrimSpace(string(name)), asked.Pid, lockPath)
}
