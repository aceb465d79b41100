package rootfs

import (
	"bufio"
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

	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/internal/errs"
	"github.com/provisionr/provisionr/server/host/files"
)

// Builder makes root file systems.
type Builder struct {
	// Dir is the cache directory; it is created.
	Dir string
	// Recipe of the root file system.
	Recipe Recipe
	// Sources of the Debian archive, at least one.
	Sources []Source
	// Proxy is the URL of a caching proxy for the build; empty asks the sources directly.
	Proxy string
	// Progress gets a line at a time from one goroutine; nil discards them.
	Progress func(line string)
}

const buildPrefix = ".build-"

// Path is where the finished root file system is, or will be.
func (b *Builder) Path() string { return filepath.Join(b.Dir, Hash(b.Recipe, b.Sources)) }

// Ready reports whether it is built.
func (b *Builder) Ready() bool {
	_, err := os.Stat(b.Path())
	return err == nil
}

// Ensure returns the path of the finished root file system and builds it when needed, which takes one to two minutes.
// Only one process of the host builds at a time; the others wait until ctx ends.
func (b *Builder) Ensure(ctx context.Context) (string, error) {
	if b.Ready() {
		return b.Path(), nil
	}
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make cache: %w", err)
	}
	lock, err := files.Acquire(ctx, filepath.Join(b.Dir, ".lock"), func() { b.progress("waiting for another build of the root file system") })
	if err != nil {
		return "", fmt.Errorf("cannot lock cache: %w", err)
	}
	defer lock.Release()
	if b.Ready() { // the other build
		return b.Path(), nil
	}
	if err := b.sweep(); err != nil {
		return "", err
	}
	temp := filepath.Join(b.Dir, buildPrefix+Hash(b.Recipe, b.Sources))
	if err := b.build(ctx, temp); err != nil {
		return "", errors.Join(err, os.RemoveAll(temp))
	}
	if err := os.Rename(temp, b.Path()); err != nil {
		return "", fmt.Errorf("cannot commit root file system: %w", err)
	}
	return b.Path(), nil
}

// sweep removes what interrupted builds left. The caller holds the lock.
func (b *Builder) sweep() error {
	left, err := filepath.Glob(filepath.Join(b.Dir, buildPrefix+"*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func (b *Builder) build(ctx context.Context, dir string) error {
	program, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return errs.New(errs.Unsupported, "cannot build root file system: %w", err).WithHint("apt-get install mmdebstrap")
	}
	args := []string{"--mode=root", "--variant=apt", "--format=directory", "--include=" + strings.Join(b.Recipe.Packages, ","),
		`--aptopt=Apt::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`}
	if b.Proxy != "" {
		args = append(args, fmt.Sprintf("--aptopt=Acquire::http::Proxy %q", b.Proxy))
	}
	for _, option := range dpkgOptions {
		args = append(args, "--dpkgopt="+option)
	}
	args = append(args,
		`--customize-hook=chroot "$1" systemctl --quiet enable `+strings.Join(b.Recipe.Enabled, " "),
		// The proxy serves the build alone; it must not stay in the configuration.
		`--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"`,
		Codename, dir, "-")
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(render(b.Sources))
	cmd.Dir = "/"
	// A kernel's package would make an initial RAM disk for the builder's host, for half a minute (initramfs-tools(7)).
	cmd.Env = append(os.Environ(), "INITRD=No")
	// A group of its own, so that the end of ctx ends apt and dpkg too; SIGTERM lets mmdebstrap clean up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Unshareflags: syscall.CLONE_NEWNS}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	tail := make(chan []string, 1)
	go func() { tail <- b.follow(out) }()
	err = cmd.Run()
	_ = in.Close() // a pipe's Close never fails
	lines := <-tail
	if err != nil {
		return errs.New(errs.Unavailable, "cannot build root file system: mmdebstrap: %w: %s", errors.Join(err, ctx.Err()), strings.Join(lines, "; ")).
			WithHint("are the apt sources of the host reachable?")
	}
	if err := finish(dir, b.Recipe, b.Sources); err != nil {
		return fmt.Errorf("cannot finish root file system: %w", err)
	}
	return syncTree(dir)
}

// follow reports the build's lines and returns the last few, for an error.
func (b *Builder) follow(r io.Reader) []string {
	const keep = 8
	var last []string
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := strings.TrimSpace(scanner.Text())
		// mmdebstrap redraws its progress in place.
		if i := strings.LastIndexByte(line, '\r'); i >= 0 {
			line = line[i+1:]
		}
		if line == "" {
			continue
		}
		b.progress(line)
		if last = append(last, line); len(last) > keep {
			last = last[1:]
		}
	}
	_, _ = io.Copy(io.Discard, r) // after a line that is too long: the writer must not block
	return last
}

func (b *Builder) progress(line string) {
	if b.Progress != nil {
		b.Progress(line)
	}
}

// syncTree writes the file system of dir to disk: the rename that follows promises a whole tree.
func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
