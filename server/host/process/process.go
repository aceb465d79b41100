package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process names one process for ever: a pid is used again, but not with the same start time within one boot.
type Process struct {
	PID int
	// Start is the start time in clock ticks since boot (proc_pid_stat(5), field 22).
	Start uint64
	// Boot is the kernel's boot id.
	Boot string
}

// Find identifies a running process. A zombie counts as absent (fs.ErrNotExist): its parent may never reap it.
func Find(pid int) (Process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, err
	}
	state, start, err := parseStat(string(stat))
	if err != nil {
		return Process{}, err
	}
	if state == "Z" || state == "X" {
		return Process{}, fmt.Errorf("process %d has ended: %w", pid, fs.ErrNotExist)
	}
	boot, err := bootID()
	if err != nil {
		return Process{}, err
	}
	return Process{PID: pid, Start: start, Boot: boot}, nil
}

// parseStat takes state and start time out of /proc/PID/stat, whose second field may hold spaces and parentheses.
func parseStat(stat string) (state string, start uint64, err error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return "", 0, errors.New("cannot parse /proc/PID/stat")
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0], start, err
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}

// Alive reports whether that very process runs, in that cgroup or below it. payload is a directory of the host. The error
// says that nobody can tell, as when this process has too many open files: that is no end of the other one.
func (p Process) Alive(payload string) (bool, error) {
	now, err := Find(p.PID)
	if err != nil || now != p {
		return false, unlessEnded(err)
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
	return inCgroup(string(groups), payload), unlessEnded(err)
}

// unlessEnded drops an error that says that there is no such process; reading its files fails with ESRCH while it goes.
func unlessEnded(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// inCgroup reports whether /proc/PID/cgroup has a cgroup2 line (hierarchy 0) at or below the directory payload. Where our
// own cgroup namespace hides the upper part of the path, payload ends with what is shown; so suffixes are compared.
func inCgroup(groups, payload string) bool {
	return slices.ContainsFunc(strings.Split(groups, "\n"), func(line string) bool {
		path, ok := strings.CutPrefix(line, "0::")
		for ; ok && len(path) > 1; path = filepath.Dir(path) {
			if strings.HasSuffix(payload, path) {
				return true
			}
		}
		return false
	})
}
