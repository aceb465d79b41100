package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/provisionr/provisionr/server/host"
	"github.com/provisionr/provisionr/server/host/process"
)

// Init is the helpers' main function: args are the arguments after [Command]. It returns the exit status.
func Init(args []string) int {
	runtime.LockOSThread()
	var err error
	switch {
	case len(args) == 1 && args[0] == "outer":
		err = outer(os.Stdin, os.NewFile(3, "console"))
	case len(args) == 1 && args[0] == "inner":
		err = inner(os.NewFile(3, "spec"))
	default:
		err = errors.New("this command is internal")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// outer runs as the host's root in its own mount namespace.
func outer(input io.Reader, console *os.File) error {
	unix.CloseOnExec(int(console.Fd()))
	var spec Spec
	if err := json.NewDecoder(input).Decode(&spec); err != nil {
		return fmt.Errorf("cannot read specification: %w", err)
	}
	unix.Umask(0)
	// A server may be protected from the out-of-memory killer; its machines must not inherit that.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0); err != nil {
		return err
	}
	// Root inside cannot raise a hard limit: it gets the one that systemd gives on a host (systemd.exec(5), LimitNOFILE).
	// A host without CAP_SYS_RESOURCE, itself a container, hands on the one that it has.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 524288}); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("cannot set limit of open files: %w", err)
	}
	dir, err := os.OpenRoot(spec.Dir)
	if err != nil {
		return err
	}
	if err := mountRoot(spec); err != nil {
		return err
	}
	if err := mountDev(spec.IDBase); err != nil {
		return fmt.Errorf("cannot make /dev: %w", err)
	}
	payload, err := os.Open(spec.Payload)
	if err != nil {
		return err
	}
	child, err := startInner(spec, payload, console)
	if err != nil {
		return fmt.Errorf("cannot make namespaces: %w", err)
	}
	// Until the specification is written the inner helper waits; should this process die, it reads an end and exits.
	if err := connect(spec.Link, child.cmd.Process.Pid); err != nil {
		return errors.Join(fmt.Errorf("cannot connect the machine: %w", err), child.kill())
	}
	started, err := process.Find(child.cmd.Process.Pid)
	if err != nil {
		return errors.Join(err, child.kill())
	}
	if err := writeRecord(dir, started); err != nil {
		return errors.Join(fmt.Errorf("cannot record init: %w", err), child.kill())
	}
	return child.release(spec)
}

// mountRoot mounts the overlay on stageRoot. The directories are opened first, for they may be below what gets hidden.
func mountRoot(spec Spec) error {
	var paths []string
	for _, path := range []string{spec.Lower, Upper(spec.Dir), Work(spec.Dir)} {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cannot open %s: %w", path, err)
		}
		paths = append(paths, fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	exe, err := openExecutable()
	if err != nil {
		return err
	}
	defer func() { _ = exe.Close() }() // only read
	if err := unix.Mount("tmpfs", stageDir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("cannot mount stage: %w", err)
	}
	for _, dir := range []string{stageRoot, stageLower} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mountLower(paths[0], spec.IDBase); err != nil {
		return fmt.Errorf("cannot map ids of the root file system (the file system of %s must support id-mapped mounts, "+
			"as ext4, xfs and btrfs do): %w", spec.Lower, err)
	}
	// volatile: no write is waited for. A machine whose host crashed is not started again, so nothing relies on syncs.
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,volatile", stageLower, paths[1], paths[2])
	if err := unix.Mount("overlay", stageRoot, "overlay", 0, options); err != nil {
		return fmt.Errorf("cannot mount overlay (%s must be on a file system that can be an overlay's upper one, "+
			"as ext4, xfs and btrfs can): %w", spec.Dir, err)
	}
	return placeExecutable(exe)
}

// openExecutable opens this binary by its path where that still leads to it: /proc/self/exe is on a mount of the server's
// namespace, from which nothing can be bound into ours.
func openExecutable() (*os.File, error) {
	running, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, errors.Join(err, running.Close())
	}
	named, err := os.Open(path)
	if err != nil {
		return running, nil // replaced or removed
	}
	a, errA := named.Stat()
	b, errB := running.Stat()
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return named, running.Close()
	}
	return running, named.Close()
}

// placeExecutable makes this binary executable by the machine's ids, wherever it is and whatever its mode: bound, or copied
// where that cannot be.
func placeExecutable(exe *os.File) error {
	info, err := exe.Stat()
	if err != nil {
		return err
	}
	target, err := os.OpenFile(stageExe, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if info.Mode()&0o001 != 0 && unix.Mount(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), stageExe, "", unix.MS_BIND, "") == nil {
		return target.Close()
	}
	_, err = io.Copy(target, exe)
	return errors.Join(err, target.Close())
}

// mountLower mounts the shared root file system with its ids shifted (mount_setattr(2), Linux 5.19 for overlays).
func mountLower(source string, base int) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(tree) }()
	users, done, err := userNamespace(base)
	if err != nil {
		return err
	}
	defer done()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY, Userns_fd: uint64(users.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", unix.AT_FDCWD, stageLower, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// userNamespace returns a user namespace with the machine's mapping: that of a process that does nothing else.
func userNamespace(base int) (f *os.File, done func(), err error) {
	cmd := exec.Command("/bin/cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL, UidMappings: idMap(base), GidMappings: idMap(base),
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	end := func() { _, _ = stdin.Close(), cmd.Wait() }
	f, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		end()
		return nil, nil, err
	}
	return f, func() { _ = f.Close(); end() }, nil
}

func idMap(base int) []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: host.IDRange}}
}

// devices are the nodes that every machine has (systemd's container interface asks for the first six).
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
	{"net/tun", 10, 200}, {"fuse", 10, 229},
}

// mountDev makes the machine's /dev on a tmpfs of the host's user namespace: only there do device nodes work.
func mountDev(base int) error {
	dev := stageRoot + "/dev"
	options := fmt.Sprintf("mode=755,uid=%d,gid=%d,size=1m,nr_inodes=1k", base, base)
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, options); err != nil {
		return err
	}
	for _, d := range []string{"pts", "shm", "mqueue", "net"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dev, d), 0o755), os.Chown(filepath.Join(dev, d), base, base)); err != nil {
			return err
		}
	}
	for _, d := range devices {
		path := filepath.Join(dev, d.name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("cannot make %s: %w", d.name, err)
		}
		if err := os.Chown(path, base, base); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		path := filepath.Join(dev, name)
		if err := errors.Join(os.Symlink(target, path), os.Lchown(path, base, base)); err != nil {
			return err
		}
	}
	return nil
}

// connect makes the veth pair; one end appears in the network namespace of pid.
func connect(link Link, pid int) error {
	bridge, err := netlink.LinkByName(link.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", link.Bridge, err)
	}
	mac, err := net.ParseMAC(link.MAC)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.MTU = link.Host, bridge.Attrs().Index, bridge.Attrs().MTU
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: link.Inside, PeerHardwareAddr: mac, PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s: %w", link.Host, err)
	}
	if err := netlink.LinkSetAlias(veth, link.Alias); err != nil {
		return err
	}
	return netlink.LinkSetUp(veth)
}

// innerProcess is the inner helper, waiting for its specification.
type innerProcess struct {
	cmd    *exec.Cmd
	spec   *os.File
	result *os.File
}

func startInner(spec Spec, payload, console *os.File) (*innerProcess, error) {
	specR, specW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	resultR, resultW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(stageExe, Command, "inner")
	cmd.Env = []string{}
	cmd.Dir = stageRoot
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{specR, resultW}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC |
			syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		UidMappings: idMap(spec.IDBase), GidMappings: idMap(spec.IDBase), GidMappingsEnableSetgroups: true,
		Credential:  &syscall.Credential{Uid: 0, Gid: 0},
		Setsid:      true,
		UseCgroupFD: true, CgroupFD: int(payload.Fd()),
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &innerProcess{cmd: cmd, spec: specW, result: resultR}, errors.Join(specR.Close(), resultW.Close())
}

// release hands the specification over and waits until init was executed: then its end of the result pipe closes.
func (p *innerProcess) release(spec Spec) error {
	err := json.NewEncoder(p.spec).Encode(spec)
	if err := errors.Join(err, p.spec.Close()); err != nil {
		return errors.Join(fmt.Errorf("cannot hand over specification: %w", err), p.kill())
	}
	message, err := io.ReadAll(io.LimitReader(p.result, 4096))
	if len(message) > 0 {
		err = errors.New(strings.TrimSpace(string(message)))
	}
	if err != nil {
		return errors.Join(err, p.kill())
	}
	return nil
}

func (p *innerProcess) kill() error {
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it says that it was killed
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
