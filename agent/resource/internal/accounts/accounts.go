// Package accounts reads the machine's local accounts: passwd(5) and group(5). It reads files and never asks NSS, because
// what resources manage is what these files hold.
package accounts

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

// maxFile bounds each database: some ten thousand accounts.
const maxFile = 4 << 20

// DB is what the databases held when they were read.
type DB struct {
	users  map[string]User
	groups map[string]Group
}

// User is a line of passwd(5).
type User struct {
	Name        string
	UID, GID    int
	Home, Shell string
}

// Group is a line of group(5).
type Group struct {
	Name    string
	GID     int
	Members []string
}

// Reader reads the databases, again only when they changed. It is safe for several goroutines.
type Reader struct {
	host *host.Host

	mu    sync.Mutex
	stats [2]syscall.Stat_t
	last  *DB
}

// NewReader returns a Reader of the machine's databases.
func NewReader(h *host.Host) *Reader { return &Reader{host: h} }

// Load returns the databases as they are now. A missing file counts as an empty one.
func (r *Reader) Load() (*DB, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stats, err := r.stat()
	if err != nil {
		return nil, err
	}
	if r.last != nil && unchanged(&stats[0], &r.stats[0]) && unchanged(&stats[1], &r.stats[1]) {
		return r.last, nil
	}
	passwd, err := read(r.host, "/etc/passwd")
	if err != nil {
		return nil, err
	}
	group, err := read(r.host, "/etc/group")
	if err != nil {
		return nil, err
	}
	// A change between stat and read is seen by the next Load, because the stats are the older ones.
	r.last, r.stats = parse(passwd, group), stats
	return r.last, nil
}

// stat looks at both files; a missing one has the zero value.
func (r *Reader) stat() ([2]syscall.Stat_t, error) {
	var stats [2]syscall.Stat_t
	// Only a sign of change is looked for here, in a directory that is root's: the files themselves are read with care.
	plain := true
	for i, name := range []string{"/etc/passwd", "/etc/group"} {
		err := syscall.Lstat(filepath.Join(r.host.Root, name), &stats[i])
		plain = plain && (err == nil && stats[i].Mode&syscall.S_IFMT == syscall.S_IFREG || err == syscall.ENOENT)
	}
	if plain {
		return stats, nil
	}
	stats = [2]syscall.Stat_t{}
	dir, _, err := conffile.Parent(r.host, "/etc/passwd", false)
	if errors.Is(err, fs.ErrNotExist) {
		return stats, nil
	}
	if err != nil {
		return stats, err
	}
	defer dir.Close()
	for i, name := range []string{"passwd", "group"} {
		info, err := dir.Stat(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return stats, err
		}
		if err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				stats[i] = *st
			}
		}
	}
	return stats, nil
}

// unchanged compares what changes with every write: the tools of shadow rename a new file into place.
func unchanged(a, b *syscall.Stat_t) bool {
	return a.Ino == b.Ino && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

func read(h *host.Host, name string) (string, error) {
	b, err := conffile.Read(h, name, maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return string(b), nil
}

// parse leaves out lines that are no accounts; of several lines with one name the first counts, as in getpwnam(3).
func parse(passwd, group string) *DB {
	db := &DB{users: make(map[string]User), groups: make(map[string]Group)}
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) != 7 || f[0] == "" {
			continue
		}
		uid, err := strconv.ParseUint(f[2], 10, 31)
		gid, err2 := strconv.ParseUint(f[3], 10, 31)
		if _, dup := db.users[f[0]]; dup || err != nil || err2 != nil {
			continue
		}
		db.users[f[0]] = User{Name: f[0], UID: int(uid), GID: int(gid), Home: f[5], Shell: f[6]}
	}
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) != 4 || f[0] == "" {
			continue
		}
		gid, err := strconv.ParseUint(f[2], 10, 31)
		if _, dup := db.groups[f[0]]; dup || err != nil {
			continue
		}
		db.groups[f[0]] = Group{Name: f[0], GID: int(gid), Members: strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })}
	}
	return db
}

// User returns an account.
func (db *DB) User(name string) (User, bool) {
	u, ok := db.users[name]
	return u, ok
}

// Group returns a group.
func (db *DB) Group(name string) (Group, bool) {
	g, ok := db.groups[name]
	return g, ok
}

// UID returns an account's number. Root is 0 also where there is no passwd file.
func (db *DB) UID(name string) (int, bool) {
	if u, ok := db.users[name]; ok {
		return u.UID, true
	}
	return 0, name == "root"
}

// GID returns a group's number. Root is 0 also where there is no group file.
func (db *DB) GID(name string) (int, bool) {
	if g, ok := db.groups[name]; ok {
		return g.GID, true
	}
	return 0, name == "root"
}

// Belongs reports whether the user is in the group, be it as its first one.
func (db *DB) Belongs(u User, group string) bool {
	g, ok := db.groups[group]
	return ok && (g.GID == u.GID || slices.Contains(g.Members, u.Name))
}
