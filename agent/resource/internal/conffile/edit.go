package conffile

import (
	"errors"
	"io/fs"
	"path"
	"slices"

	"github.com/provisionr/provisionr/agent/host"
)

// Edited returns the file at a path with other content: it keeps its mode and owner. A missing file, and a link, get the usual ones.
func Edited(h *host.Host, name string, content []byte) (File, error) {
	now, err := Save(h, name)
	f := File{Path: name, Content: content}
	if err == nil && !now.Absent && now.Link == "" {
		f.Mode, f.Owner = Mode(now.Mode), &host.Owner{UID: now.UID, GID: now.GID}
	}
	return f, err
}

// Dirs returns the names of the directories in a directory that match a pattern of path.Match, in order. A missing directory has none.
func Dirs(h *host.Host, dir, pattern string) ([]string, error) {
	entries, err := readDir(h, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if ok, err := path.Match(pattern, e.Name()); err == nil && ok && e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}
