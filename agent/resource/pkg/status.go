package pkg

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	statusPath  = "/var/lib/dpkg/status"
	updatesPath = "/var/lib/dpkg/updates"
	// maxStatus bounds dpkg's status file: a full desktop has 5 MiB.
	maxStatus = 64 << 20
)

// status reads the status file, again only when it changed.
type status struct {
	host *host.Host
	stat syscall.Stat_t
	last *installed
}

func (s *status) read() (*installed, error) {
	dir, base, err := conffile.Parent(s.host, statusPath, false)
	if err != nil {
		return nil, fmt.Errorf("cannot read the packages' state: %w", err)
	}
	defer dir.Close()
	info, err := dir.Stat(base)
	if err != nil {
		return nil, fmt.Errorf("cannot read the packages' state: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && s.last != nil && unchanged(&s.stat, st) {
		return s.last, nil
	}
	content, err := conffile.Read(s.host, statusPath, maxStatus)
	if err != nil {
		return nil, fmt.Errorf("cannot read the packages' state: %w", err)
	}
	s.last = parse(content)
	if ok {
		s.stat = *st
	}
	return s.last, nil
}

// unchanged compares what changes with every write: dpkg renames a new status file into place.
func unchanged(a, b *syscall.Stat_t) bool {
	return a.Ino == b.Ino && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

// interrupted reports whether dpkg stopped in mid-transaction: its journal holds numbered files then.
func (s *status) interrupted() (bool, error) {
	names, err := conffile.List(s.host, updatesPath, "[0-9]*")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	return len(names) > 0, err
}

// parse reads a status file (deb822 stanzas). What is no stanza is skipped.
func parse(content []byte) *installed {
	in := &installed{versions: make(map[string]string), provided: make(map[string]bool), held: make(map[string]bool)}
	for len(content) > 0 {
		var stanza []byte
		stanza, content, _ = bytes.Cut(content, []byte("\n\n"))
		in.add(stanza)
	}
	return in
}

func (in *installed) add(stanza []byte) {
	var name, state, version, provides string
	for len(stanza) > 0 {
		var line []byte
		line, stanza, _ = bytes.Cut(stanza, []byte("\n"))
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(line) == 0 || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		switch string(key) {
		case "Package":
			name = string(bytes.TrimSpace(value))
		case "Status":
			state = string(bytes.TrimSpace(value))
		case "Version":
			version = string(bytes.TrimSpace(value))
		case "Provides":
			provides = string(value)
		}
	}
	// Status is three words: what was wanted, an error flag, and the state (deb-triggers(5), dpkg(1)).
	words := strings.Fields(state)
	if name == "" || len(words) != 3 {
		return
	}
	if words[0] == "hold" {
		in.held[name] = true
	}
	switch words[2] {
	case "installed":
	case "not-installed", "config-files":
		return
	case "triggers-pending", "triggers-awaited":
		in.broken = append(in.broken, name+" is in "+words[2])
	default:
		in.broken = append(in.broken, name+" is "+words[2])
		return
	}
	if _, second := in.versions[name]; !second {
		in.versions[name] = version
	}
	for p := range strings.SplitSeq(provides, ",") {
		virtual, _, _ := strings.Cut(strings.TrimSpace(p), " ")
		if virtual != "" {
			in.provided[virtual] = true
		}
	}
}
