// Package container starts one system container: systemd as PID 1 in namespaces of its own.
//
// The server re-executes its own binary twice, because Linux gives namespaces and capabilities to threads and Go programs
// have many. [Start] runs the outer helper in a private mount namespace of the host; it mounts the machine's root and runs
// the inner helper in new user, mount, UTS, IPC, PID and network namespaces; the inner helper mounts what root in that user
// namespace may mount, drops capabilities, makes a cgroup namespace and becomes /sbin/init.
//
// Invariants:
//   - Root inside is an unprivileged user of the host: every machine has its own user namespace and its own range of 65,536
//     ids, and sees the shared root file system through an id-mapped mount. The kernel itself then refuses device nodes
//     (file systems mounted inside have no devices), the host's clock, the sysctls that are not its own, kernel modules,
//     sysrq and /proc/kcore. That is why /proc needs no masks, and why there is no device filter: nothing depends on a
//     list of ours being complete, and it is the same on pure cgroup2 hosts and hybrid ones.
//   - The capability bounding set is an allow list all the same, so that units with ConditionCapability see the truth:
//     chrony, for one, must know that it cannot set the clock.
//   - Nothing of the machine is mounted in the host's mount namespace. When its last process is gone, so are its mounts.
//   - The helpers need nothing of the server after their specification was written: a server killed at any instruction
//     leaves a machine that runs and is recorded, or a half that the record names and a later call removes.
package container
