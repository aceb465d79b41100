package service

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	// deleted ends the name of a mapped file that is no longer there (proc_pid_maps(5)).
	deleted = " (deleted)"
	maxMaps = 8 << 20
)

// installed are where packages put programs and libraries. What programs delete themselves is elsewhere.
var installed = []string{"/usr/", "/lib", "/bin/", "/sbin/", "/opt/"}

// replaced returns a file that a process runs and that was since replaced or removed, or "".
func replaced(h *host.Host, pid int) (string, error) {
	if pid <= 0 {
		return "", nil
	}
	maps, err := conffile.Read(h, "/proc/"+strconv.Itoa(pid)+"/maps", maxMaps)
	switch {
	// The process may have ended since systemd named it; a container may not look into all.
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, os.ErrPermission), errors.Is(err, syscall.ESRCH):
		return "", nil
	case err != nil:
		return "", err
	}
	return replacedIn(string(maps)), nil
}

// replacedIn looks through maps for code, or an archive of it, that is no longer there.
func replacedIn(maps string) string {
	for line := range strings.Lines(maps) {
		line, gone := strings.CutSuffix(strings.TrimRight(line, "\n"), deleted)
		if !gone {
			continue
		}
		// address perms offset dev inode path, the path beginning with its slash
		at := strings.IndexByte(line, '/')
		f := strings.Fields(line)
		if at < 0 || len(f) < 2 {
			continue
		}
		path := line[at:]
		if !strings.Contains(f[1], "x") && !strings.HasSuffix(path, ".jar") {
			continue
		}
		for _, dir := range installed {
			if strings.HasPrefix(path, dir) {
				return path
			}
		}
	}
	return ""
}
