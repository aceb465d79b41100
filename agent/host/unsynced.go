package host

import (
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// startUnsynced starts a command in whose processes fsync(2), fdatasync(2), syncfs(2), sync(2) and msync(2) with MS_SYNC do
// nothing and succeed. Where the kernel does not allow that, it starts as any other.
func startUnsynced(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		// Never unlocked: the thread, to which the filter is bound for ever, ends with the goroutine, and the runtime makes no
		// other thread from it. The command, which it forks, keeps the filter.
		runtime.LockOSThread()
		_ = ignoreSyncs()
		started <- cmd.Start()
	}()
	return <-started
}

// Offsets in struct seccomp_data (seccomp(2)); flags of msync are the low half of its third argument.
const (
	callNumber   = 0
	architecture = 4
	msyncFlags   = 16 + 2*8
)

// ignoreSyncs puts a filter on the thread. It leaves no_new_privs alone, as maintainer scripts run programs that are setuid,
// and so needs CAP_SYS_ADMIN.
func ignoreSyncs() error {
	arch, known := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if !known {
		return unix.ENOSYS
	}
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
	)
	// Jumps count from the next instruction on.
	filter := [...]unix.SockFilter{
		{Code: load, K: architecture},
		{Code: equal, K: arch, Jf: 8},
		{Code: load, K: callNumber},
		{Code: equal, K: unix.SYS_FSYNC, Jt: 7},
		{Code: equal, K: unix.SYS_FDATASYNC, Jt: 6},
		{Code: equal, K: unix.SYS_SYNCFS, Jt: 5},
		{Code: equal, K: unix.SYS_SYNC, Jt: 4},
		{Code: equal, K: unix.SYS_MSYNC, Jf: 2},
		{Code: load, K: msyncFlags},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.MS_SYNC, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO}, // with error 0
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// x/sys has no call for it that takes a pointer.
	_, _, e := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		return e
	}
	return nil
}
