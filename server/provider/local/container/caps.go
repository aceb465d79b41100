package container

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// allowed is the capability bounding set inside: what systemd, sshd, nftables, apt and a debugger need in their own user
// namespace. The names are for setpriv(1).
var allowed = map[string]int{
	"chown": unix.CAP_CHOWN, "dac_override": unix.CAP_DAC_OVERRIDE, "dac_read_search": unix.CAP_DAC_READ_SEARCH,
	"fowner": unix.CAP_FOWNER, "fsetid": unix.CAP_FSETID, "kill": unix.CAP_KILL, "setgid": unix.CAP_SETGID,
	"setuid": unix.CAP_SETUID, "setpcap": unix.CAP_SETPCAP, "linux_immutable": unix.CAP_LINUX_IMMUTABLE,
	"net_bind_service": unix.CAP_NET_BIND_SERVICE, "net_broadcast": unix.CAP_NET_BROADCAST,
	"net_admin": unix.CAP_NET_ADMIN, "net_raw": unix.CAP_NET_RAW, "ipc_lock": unix.CAP_IPC_LOCK,
	"ipc_owner": unix.CAP_IPC_OWNER, "sys_chroot": unix.CAP_SYS_CHROOT, "sys_ptrace": unix.CAP_SYS_PTRACE,
	"sys_admin": unix.CAP_SYS_ADMIN, "sys_nice": unix.CAP_SYS_NICE, "sys_resource": unix.CAP_SYS_RESOURCE,
	"sys_tty_config": unix.CAP_SYS_TTY_CONFIG, "lease": unix.CAP_LEASE, "audit_write": unix.CAP_AUDIT_WRITE,
	"setfcap": unix.CAP_SETFCAP,
}

// lastPossible is more than any kernel has: capabilities are two 32-bit words.
const lastPossible = 63

// dropCapabilities reduces the bounding set of the calling thread to allowed.
func dropCapabilities() error {
	keep := map[int]bool{}
	for _, c := range allowed {
		keep[c] = true
	}
	for c := range lastPossible + 1 {
		if keep[c] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // past the kernel's last capability
		}
		if err != nil {
			return fmt.Errorf("cannot drop capability %d: %w", c, err)
		}
	}
	return nil
}

// BoundingSet is the set for setpriv(1) --bounding-set.
func BoundingSet() string {
	names := make([]string, 0, len(allowed)+1)
	for name := range allowed {
		names = append(names, "+"+name)
	}
	slices.Sort(names)
	return "-all," + strings.Join(names, ",")
}
