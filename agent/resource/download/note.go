package download

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	notesDir = conffile.StateDir + "/downloads"
	maxNote  = 64 << 20
	// maxNamed bounds how many files a diff names.
	maxNamed = 5
	// slowBytes is how much content doubles the wait between two comparisons by content.
	slowBytes = 256 << 20
)

// note is what was made. It is JSON in the agent's state.
type note struct {
	Path   string `json:"path"`
	Sha256 string `json:"sha256"`
	Strip  uint32 `json:"strip,omitempty"`
	// Tree says that it is an unpacked archive.
	Tree    bool    `json:"tree,omitempty"`
	Entries []entry `json:"entries"`
}

// entry is one file, directory or link; the name of the target itself is ".".
type entry struct {
	Name string `json:"name"`
	Mode uint32 `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	Size int64  `json:"size,omitempty"`
	// Time is that of the last modification, in nanoseconds.
	Time int64 `json:"time,omitempty"`
	// Sum is the SHA-256 of a file's content, or the target of a link.
	Sum string `json:"sum,omitempty"`
}

// seen remembers a note, and when content was compared last.
type seen struct {
	note *note
	at   time.Time
}

func (d *download) notePath() string {
	sum := sha256.Sum256([]byte(d.want.Path))
	return notesDir + "/" + hex.EncodeToString(sum[:12]) + ".json"
}

func (d *download) readNote() (*note, error) {
	if d.seen.note != nil {
		return d.seen.note, nil
	}
	content, err := conffile.Read(d.host, d.notePath(), maxNote)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := &note{}
	if json.Unmarshal(content, n) != nil || n.Path != d.want.Path {
		return nil, nil // what cannot be read is as good as none
	}
	// A new agent takes the note's word for the content, until it is time to compare it.
	d.seen = seen{n, time.Now()}
	return n, nil
}

func (d *download) writeNote(dir *os.Root, base string) error {
	entries, err := list(dir, base)
	if err != nil {
		return err
	}
	for i := range entries {
		if err := entries[i].fill(dir, path.Join(base, entries[i].Name)); err != nil {
			return err
		}
	}
	return d.save(&note{d.want.Path, hex.EncodeToString(d.want.Sha256), d.want.Strip, d.want.Extract, entries})
}

func (d *download) save(n *note) error {
	content, err := json.Marshal(n)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = seen{n, time.Now()}
	return conffile.Apply(d.host, &conffile.File{Path: d.notePath(), Content: content, Mode: 0o600})
}

// list walks a file or a tree, without content, in order of names.
func list(dir *os.Root, base string) ([]entry, error) {
	var entries []entry
	err := fs.WalkDir(dir.FS(), base, func(name string, de fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := de.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s has no inode", name)
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(name, base), "/")
		if rel == "" {
			rel = "."
		}
		e := entry{Name: rel, Mode: st.Mode, UID: st.Uid, GID: st.Gid}
		if info.Mode().IsRegular() {
			e.Size, e.Time = st.Size, st.Mtim.Nano()
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			if e.Sum, err = dir.Readlink(name); err != nil {
				return err
			}
		}
		if len(entries) >= maxEntries {
			return fmt.Errorf("more than %d files", maxEntries)
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

func (e *entry) regular() bool { return e.Mode&syscall.S_IFMT == syscall.S_IFREG }

func (e *entry) fill(dir *os.Root, name string) (err error) {
	if e.regular() {
		e.Sum, err = hashOf(dir, name)
	}
	return err
}

func hashOf(dir *os.Root, name string) (string, error) {
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, bufio.NewReaderSize(f, 256<<10)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// compareContent compares what is there with the note or, for a file without one, with its hash.
func (d *download) compareContent(dir *os.Root, base string, n *note, own host.Owner) (string, error) {
	entries, err := list(dir, base)
	if err != nil {
		return "", err
	}
	var lines []string
	top := entries[0]
	if mode := fromUnix(top.Mode); mode != d.mode() {
		lines = append(lines, fmt.Sprintf("%s: mode %#o, wanted %#o", d.want.Path, mode.Perm(), d.mode().Perm()))
	}
	if int(top.UID) != own.UID || int(top.GID) != own.GID {
		lines = append(lines, fmt.Sprintf("%s: owner %d:%d, wanted %d:%d", d.want.Path, top.UID, top.GID, own.UID, own.GID))
	}
	var size int64
	for _, e := range entries {
		size += e.Size
	}
	full := n == nil || time.Since(d.seen.at) >= conffile.FullEvery*time.Duration(1+size/slowBytes)
	if !d.want.Extract {
		if full || len(n.Entries) != 1 || n.Entries[0].Size != top.Size || n.Entries[0].Time != top.Time || n.Sha256 != hex.EncodeToString(d.want.Sha256) {
			full = true
			sum, err := hashOf(dir, base)
			if err != nil {
				return "", err
			}
			if sum != hex.EncodeToString(d.want.Sha256) {
				lines = append(lines, fmt.Sprintf("%s:\n-sha256 %s\n+sha256 %x", d.want.Path, sum, d.want.Sha256))
			}
		}
	} else if len(lines) == 0 {
		differ, err := differing(dir, base, n.Entries, entries, full)
		if err != nil {
			return "", err
		}
		lines = append(lines, differ...)
	}
	if full && len(lines) == 0 {
		d.seen.at = time.Now()
	}
	return strings.Join(lines, "\n"), nil
}

// differing compares trees entry by entry: both lists are in the order of a walk.
func differing(dir *os.Root, base string, was, is []entry, full bool) ([]string, error) {
	then := make(map[string]entry, len(was))
	for _, e := range was {
		then[e.Name] = e
	}
	var lines []string
	for _, e := range is {
		old, known := then[e.Name]
		delete(then, e.Name)
		if full && known && e.regular() {
			if err := e.fill(dir, path.Join(base, e.Name)); err != nil {
				return nil, err
			}
		} else if e.regular() {
			e.Sum = old.Sum
		}
		switch {
		case !known:
			lines = append(lines, e.Name+": not of the archive")
		case e != old:
			lines = append(lines, e.Name+": changed")
		}
	}
	for name := range then {
		lines = append(lines, name+": missing")
	}
	slices.Sort(lines)
	if n := len(lines); n > maxNamed {
		lines = append(lines[:maxNamed], fmt.Sprintf("and %d more", n-maxNamed))
	}
	return lines, nil
}

func fromUnix(mode uint32) fs.FileMode { return conffile.Mode(mode & 0o7777) }

// magic is what the kinds of archives begin with.
var magic = []struct {
	kind  string
	bytes []byte
}{
	{"gzip", []byte{0x1f, 0x8b}}, {"xz", []byte{0xfd, '7', 'z', 'X', 'Z', 0}}, {"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd}}, {"zip", []byte("PK\x03\x04")},
}

func kindOf(head []byte) string {
	for _, m := range magic {
		if bytes.HasPrefix(head, m.bytes) {
			return m.kind
		}
	}
	if len(head) >= 262 && string(head[257:262]) == "ustar" {
		return "tar"
	}
	return ""
}
