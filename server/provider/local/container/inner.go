package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// inner runs as PID 1 and as root of the machine's user namespace. It returns only with an error, which it also reports to
// the outer helper over descriptor 4; exec closes that pipe.
func inner(input *os.File) error {
	result := os.NewFile(4, "result")
	unix.CloseOnExec(int(result.Fd()))
	unix.CloseOnExec(int(input.Fd()))
	err := become(input)
	fmt.Fprintln(result, err)
	return err
}

func become(input *os.File) error {
	var spec Spec
	if err := json.NewDecoder(input).Decode(&spec); err != nil {
		return fmt.Errorf("cannot read specification: %w", err)
	}
	unix.Umask(0o022)
	// Now that this process is in the payload cgroup that becomes the root of the namespace.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("cannot make cgroup namespace: %w", err)
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("cannot set host name: %w", err)
	}
	// The tree was inherited and is locked (mount_namespaces(7)): only a mount of our own can become the root.
	if err := unix.Mount(stageRoot, stageRoot, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot bind root: %w", err)
	}
	if err := os.Chdir(stageRoot); err != nil {
		return err
	}
	if err := mountKernel(); err != nil {
		return err
	}
	if err := writeFiles(spec); err != nil {
		return fmt.Errorf("cannot write seed: %w", err)
	}
	// pivot_root(2): with "." for both the old root ends up on top of the new one.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("cannot change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot leave the host's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// The session keyring is inherited like a descriptor: the machine must not have the server's.
	// A kernel or container without keyctl has none to inherit.
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("cannot leave session keyring: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux", "container=provisionr"}
	// There is no /dev/console: everything goes to the journal.
	err = syscall.Exec("/sbin/init", []string{"/sbin/init", "--log-target=journal", "--show-status=false"}, env)
	return fmt.Errorf("cannot execute /sbin/init: %w", err)
}

// mountKernel mounts the kernel's file systems below the working directory. systemd takes a read-only /sys as the sign not
// to start udev, which has nothing to manage in a container.
func mountKernel() error {
	const restricted = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		kind, target string
		flags        uintptr
		options      string
	}{
		{"proc", "proc", restricted, ""},
		{"sysfs", "sys", restricted | unix.MS_RDONLY, ""},
		{"cgroup2", "sys/fs/cgroup", restricted, ""},
		{"devpts", "dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5"},
		{"tmpfs", "dev/shm", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"mqueue", "dev/mqueue", restricted, ""},
		{"tmpfs", "run", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"tmpfs", "tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	} {
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.options); err != nil {
			if m.kind == "proc" || m.kind == "sysfs" {
				err = fmt.Errorf("%w (parts of the host's /%s are hidden, as in an unprivileged container?)", err, m.target)
			}
			return fmt.Errorf("cannot mount %s on /%s: %w", m.kind, m.target, err)
		}
	}
	return nil
}

// seedDir is where cloud-init's NoCloud data source looks first.
const seedDir = "var/lib/cloud/seed/nocloud"

func writeFiles(spec Spec) error {
	root, err := os.OpenRoot(".")
	if err != nil {
		return err
	}
	err = errors.Join(
		root.MkdirAll(seedDir, 0o755),
		root.WriteFile("etc/hostname", []byte(spec.Hostname+"\n"), 0o644),
		root.WriteFile("etc/machine-id", MachineIDFile(spec.MachineID), 0o444),
	)
	for name, content := range spec.Seed {
		err = errors.Join(err, root.WriteFile(filepath.Join(seedDir, filepath.Base(name)), content, 0o600))
	}
	return errors.Join(err, root.Close())
}
