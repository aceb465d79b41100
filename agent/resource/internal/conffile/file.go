package conffile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

// FullEvery is how long a file counts as unchanged by its inode, size and times alone.
const FullEvery = 10 * time.Minute

// maxRead bounds the present content that is read for a comparison. Larger files differ anyway: none of ours is that large.
const maxRead = 1 << 20

// File is one file as desired.
type File struct {
	// Path is absolute.
	Path    string
	Content []byte
	// Mode is the permission bits with setuid, setgid and sticky; zero means 0644.
	Mode fs.FileMode
	// Owner nil means the agent's own user, which is root on a real machine.
	Owner *host.Owner
	// Absent says that there shall be no file; the other fields are not looked at.
	Absent bool
	// Public says that what the file holds is no secret although not everybody may read it, as public keys: a diff shows it.
	Public bool
	// Secret names the secrets that Content is made of, as people may read it. Not empty, no diff shows any content.
	Secret string
}

// Seen remembers a file that was found as desired. The zero value remembers nothing. It belongs to one desired File.
type Seen struct {
	stat syscall.Stat_t
	at   time.Time
}

func (f *File) mode() fs.FileMode {
	if f.Mode == 0 {
		return 0o644
	}
	return f.Mode
}

func (f *File) owner() host.Owner {
	if f.Owner == nil {
		return host.Owner{UID: os.Geteuid(), GID: os.Getegid()}
	}
	return *f.Owner
}

// secret reports whether others shall not read the file: then a diff does not show it either.
func (f *File) secret() bool { return secret(f.mode()) }

// secret is the same of a mode. What is on the disk may be more secret than what is wanted.
func secret(mode fs.FileMode) bool { return mode&0o004 == 0 }

// Check returns what is different, or "". It changes nothing on the machine.
func Check(h *host.Host, f *File, seen *Seen) (string, error) {
	st, err := h.StatPlain(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing(f), nil
	case err == nil && !f.Absent && st.Mode&syscall.S_IFMT == syscall.S_IFREG:
		return compare(&st, f, seen, func() ([]byte, error) { return Read(h, f.Path, maxRead) })
	}
	return checkByWalk(h, f, seen)
}

// checkByWalk is Check where links lead to the file, or something else is in its place.
func checkByWalk(h *host.Host, f *File, seen *Seen) (string, error) {
	dir, base, info, err := lookup(h, f.Path)
	defer closeDir(dir)
	switch {
	case err != nil:
		return "", err
	case info == nil:
		return missing(f), nil
	case f.Absent && info.IsDir():
		return "", fmt.Errorf("cannot remove %s: it is a directory", f.Path)
	case f.Absent:
		return f.Path + ": exists, wanted absent", nil
	case info.IsDir():
		return "", fmt.Errorf("cannot write %s: it is a directory", f.Path)
	case !info.Mode().IsRegular():
		return f.Path + ": not a regular file", nil
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("cannot look at %s: no inode", f.Path)
	}
	return compare(st, f, seen, func() ([]byte, error) { return read(dir, base, f.Path, maxRead) })
}

func missing(f *File) string {
	if f.Absent {
		return ""
	}
	return textdiff.Bound(f.Path + ": missing\n" + f.contents(nil, 0o644))
}

// contents shows how present content, of a file with a mode, differs from what is wanted.
func (f *File) contents(now []byte, mode fs.FileMode) string {
	if f.Secret != "" && !bytes.Equal(now, f.Content) {
		return f.Path + ": content differs (" + f.Secret + ")"
	}
	return textdiff.Contents(f.Path, now, f.Content, !f.Public && (f.secret() || secret(mode)))
}

func compare(st *syscall.Stat_t, f *File, seen *Seen, read func() ([]byte, error)) (string, error) {
	own := f.owner()
	rightOwner := int(st.Uid) == own.UID && int(st.Gid) == own.GID
	// The owner as desired may have changed, where it is a name: an account may come back with another number.
	if rightOwner && same(&seen.stat, st) && time.Since(seen.at) < FullEvery {
		return "", nil
	}
	var diffs []string
	if !rightOwner {
		diffs = append(diffs, fmt.Sprintf("%s: owner %d:%d, wanted %d:%d", f.Path, st.Uid, st.Gid, own.UID, own.GID))
	}
	got := Mode(st.Mode)
	if got != f.mode() {
		diffs = append(diffs, fmt.Sprintf("%s: mode %#o, wanted %#o", f.Path, unixMode(got), unixMode(f.mode())))
	}
	content, err := read()
	if err != nil {
		return "", err
	}
	if !bytes.Equal(content, f.Content) {
		diffs = append(diffs, f.contents(content, got))
	}
	diff := textdiff.Join(diffs...)
	// A write within the clock's last tick would leave the same times: such a file is compared again next time.
	if diff == "" && time.Since(time.Unix(st.Mtim.Unix())) > time.Second {
		*seen = Seen{*st, time.Now()}
	}
	return diff, nil
}

func same(a, b *syscall.Stat_t) bool {
	return a.Ino == b.Ino && a.Dev == b.Dev && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim &&
		a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid
}

// special are the bits of a mode beyond those of its permissions, as chmod(1) has them.
var special = [...]struct {
	flag uint32
	bit  fs.FileMode
}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}}

// unixMode returns a mode as chmod(1) has it.
func unixMode(m fs.FileMode) uint32 {
	u := uint32(m.Perm())
	for _, s := range special {
		if m&s.bit != 0 {
			u |= s.flag
		}
	}
	return u
}

// Mode returns the bits of chmod(1) as an fs.FileMode.
func Mode(unix uint32) fs.FileMode {
	m := fs.FileMode(unix & 0o777)
	for _, s := range special {
		if unix&s.flag != 0 {
			m |= s.bit
		}
	}
	return m
}

// Apply writes or removes the file. It writes also where nothing differs.
func Apply(h *host.Host, f *File) error {
	dir, base, err := Parent(h, f.Path, !f.Absent)
	if err != nil {
		if f.Absent && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer dir.Close()
	if f.Absent {
		if err := dir.Remove(base); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove %s: %w", f.Path, err)
		}
		return nil
	}
	own := f.owner()
	return host.WriteFile(dir, base, f.Content, host.Attributes{Mode: f.mode(), Owner: &own})
}

func read(dir *os.Root, base, name string, max int64) ([]byte, error) {
	// O_NONBLOCK: opening a pipe that took the file's place must not wait for a writer.
	file, err := dir.OpenFile(base, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	defer file.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(file, max+1)); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return b.Bytes(), nil
}
