package pkg

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

// listsStale reports whether the archives' lists are missing or older than the sources. A list's modification time is the
// archive's, so that its change time, and our stamp, tell when it was fetched.
func (a *apt) listsStale() (bool, error) {
	fetched, err := newest(a.host, listsDir, "*Release", changeTime)
	if err != nil || fetched.IsZero() {
		return true, err
	}
	stamp, err := newest(a.host, conffile.StateDir, "apt-updated", changeTime)
	if err != nil {
		return true, err
	}
	if stamp.After(fetched) {
		fetched = stamp
	}
	for _, s := range []struct{ dir, pattern string }{
		{"/etc/apt", "sources.list"}, {"/etc/apt/sources.list.d", "*"}, {"/etc/apt/keyrings", "*"},
	} {
		changed, err := newest(a.host, s.dir, s.pattern, fs.FileInfo.ModTime)
		if err != nil || changed.After(fetched) {
			return true, err
		}
	}
	return false, nil
}

func changeTime(info fs.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return info.ModTime()
}

// newest returns the latest time of the files in a directory that match; zero if there are none.
func newest(h *host.Host, dir, pattern string, at func(fs.FileInfo) time.Time) (time.Time, error) {
	var last time.Time
	names, err := conffile.List(h, dir, pattern)
	if err != nil || len(names) == 0 {
		return last, err
	}
	root, _, err := conffile.Parent(h, dir+"/"+names[0], false)
	if err != nil {
		return last, err
	}
	defer root.Close()
	for _, name := range names {
		info, err := root.Stat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // a dangling link, or removed meanwhile
		}
		if err != nil {
			return last, err
		}
		if t := at(info); t.After(last) {
			last = t
		}
	}
	return last, nil
}
