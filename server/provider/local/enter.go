package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/files"
	"github.com/provisionr/provisionr/server/host/rootfs"
	"github.com/provisionr/provisionr/server/provider"
	"github.com/provisionr/provisionr/server/provider/local/container"
)

// outputLimit bounds what Enter keeps of a command's output, and a part of the console.
const outputLimit = 1 << 20

// Enter runs a command as root inside a running machine, for tests and debugging, and returns its output and errors
// mixed, at most 1 MiB. It joins the machine's user namespace and has no more capabilities than its init. A command
// that fails gives an *exec.ExitError.
func (p *Provider) Enter(ctx context.Context, machineID string, command ...string) ([]byte, error) {
	alive, err := p.alive(machineID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if !alive {
		return nil, errs.New(errs.NotFound, "machine %s is not running", machineID)
	}
	init, err := container.Record(p.machineDir(machineID))
	if err != nil {
		return nil, err
	}
	group, err := p.machineCgroup(machineID)
	if err != nil {
		return nil, err
	}
	aux, err := os.Open(group.aux())
	if err != nil {
		return nil, err
	}
	defer func() { _ = aux.Close() }() // only read
	// Joining a user namespace gives all capabilities in it, and a new bounding set: setpriv reduces it again.
	args := []string{"--target=" + strconv.Itoa(init.PID), "--user", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
		"--setuid=0", "--setgid=0", "--",
		"/usr/bin/setpriv", "--bounding-set=" + container.BoundingSet(), "--inh-caps=-all", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(args, command...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(aux.Fd())}
	// nsenter forks to enter the PID namespace: end the whole group.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out := &bounded{limit: outputLimit}
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	return out.Bytes(), err
}

// bounded keeps the first bytes that are written and drops the rest.
type bounded struct {
	bytes.Buffer
	limit int
}

func (b *bounded) Write(data []byte) (int, error) {
	if room := b.limit - b.Len(); room > 0 {
		b.Buffer.Write(data[:min(len(data), room)])
	}
	return len(data), nil
}

// consoleLimit bounds Console's answer in bytes, and consolePart each of its parts.
const (
	consoleLimit = 64 << 10
	consolePart  = consoleLimit/3 - 100
)

// Console implements provider.Provider: what the helpers said, what cloud-init printed, and the end of the journal. It
// reads them from the machine's overlay, running or not.
func (p *Provider) Console(ctx context.Context, machineID, _ string) (string, error) {
	dir := p.machineDir(machineID)
	if _, err := os.Stat(dir); !host.ValidID(machineID) || err != nil {
		return "", provider.Errorf(provider.NotFound, "no machine %q", machineID)
	}
	var b strings.Builder
	for _, part := range []struct {
		title string
		read  func() ([]byte, error)
	}{
		{"console", func() ([]byte, error) { return files.Tail(dir, consoleFile, consolePart) }},
		{"cloud-init", func() ([]byte, error) {
			return files.Tail(container.Upper(dir), "var/log/cloud-init-output.log", consolePart)
		}},
		{"journal", func() ([]byte, error) { return p.journal(ctx, machineID) }},
	} {
		text, err := part.read()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			text = fmt.Appendf(nil, "cannot read: %v", err)
		}
		if len(text) > 0 {
			text = text[max(0, len(text)-consolePart):]
			fmt.Fprintf(&b, "--- %s ---\n%s\n", part.title, bytes.TrimSpace(text))
		}
	}
	return strings.ToValidUTF8(b.String(), "?"), nil
}

// journal reads the machine's journal with the journalctl of the shared root file system, as the machine's own root: an
// unprivileged user of the host, for a machine may have written anything there.
func (p *Provider) journal(ctx context.Context, id string) ([]byte, error) {
	root, err := os.OpenRoot(container.Upper(p.machineDir(id)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only read
	logs, err := root.OpenFile("var/log/journal", os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = logs.Close() }() // only read
	b := p.archive.Builder(p.rootfsDir(), rootfs.Container())
	if !b.Ready() {
		return nil, fs.ErrNotExist
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	script := `mount --bind /proc/self/fd/3 "$1/mnt" && exec chroot --userspec="$2:$2" "$1" journalctl --directory=/mnt --lines=250 --output=short-monotonic --no-pager --quiet`
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script, "sh", b.Path(), strconv.Itoa(host.IDBase(id)))
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.ExtraFiles = []*os.File{logs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.WaitDelay = time.Second
	out := &bounded{limit: outputLimit}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("journalctl: %w", err)
	}
	return out.Bytes(), nil
}
