package pkg

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	statusPath  = "/var/lib/dpkg/status"
	updatesPath = "/var/lib/dpkg/updates"
	// maxStatus bounds dpkg's status file: a full desktop has 5 MiB.
	maxStatus = 64 << 20
	// pieceSize is how much of it is in memory at a time, longer lines apart; usual is how many packages are expected.
	pieceSize = 16 << 10
	usual     = 256
)

// status reads the status file, again only when it changed.
type status struct {
	host *host.Host
	stat syscall.Stat_t
	last *installed
}

func (s *status) read() (*installed, error) {
	st, err := conffile.Stat(s.host, statusPath)
	if err != nil {
		return nil, fmt.Errorf("cannot read the packages' state: %w", err)
	}
	regular := st.Mode&syscall.S_IFMT == syscall.S_IFREG
	if regular && s.last != nil && unchanged(&s.stat, &st) {
		return s.last, nil
	}
	in, err := s.parse(regular)
	if err != nil {
		return nil, fmt.Errorf("cannot read the packages' state: %w", err)
	}
	s.last, s.stat = in, st
	return s.last, nil
}

// parse reads the file in pieces where no link leads to it.
func (s *status) parse(regular bool) (*installed, error) {
	if regular {
		if fd, err := s.host.OpenPlain(statusPath, syscall.O_RDONLY); err == nil {
			f := os.NewFile(uintptr(fd), statusPath)
			defer f.Close()
			return parse(io.LimitReader(f, maxStatus))
		}
	}
	content, err := conffile.Read(s.host, statusPath, maxStatus)
	if err != nil {
		return nil, err
	}
	return parse(bytes.NewReader(content))
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
func parse(r io.Reader) (*installed, error) {
	in := &installed{versions: make(map[string]string, usual), provided: make(map[string]bool), held: make(map[string]bool)}
	lines := bufio.NewReaderSize(r, pieceSize)
	var p status822
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			begin := slices.Clone(line)
			line, err = lines.ReadBytes('\n')
			line = append(begin, line...)
		}
		if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 0 {
			p.take(line)
		}
		if len(line) == 0 || err != nil {
			in.add(&p)
			p.clear()
		}
		if errors.Is(err, io.EOF) {
			return in, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// status822 is what counts of a stanza.
type status822 struct {
	name, state, version, provides []byte
}

func (p *status822) clear() {
	p.name, p.state, p.version, p.provides = p.name[:0], p.state[:0], p.version[:0], p.provides[:0]
}

// take copies the value of a line that counts: the line is overwritten by the next one.
func (p *status822) take(line []byte) {
	if c := line[0]; c != 'P' && c != 'S' && c != 'V' {
		return // most lines: nothing more is to be spent on them
	}
	key, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return
	}
	var to *[]byte
	switch string(key) {
	case "Package":
		to = &p.name
	case "Status":
		to = &p.state
	case "Version":
		to = &p.version
	case "Provides":
		to = &p.provides
	default:
		return
	}
	*to = append((*to)[:0], bytes.TrimSpace(value)...)
}

func (in *installed) add(p *status822) {
	// Status is three words: what was wanted, an error flag, and the state (deb-triggers(5), dpkg(1)).
	words := bytes.Fields(p.state)
	if len(p.name) == 0 || len(words) != 3 {
		return
	}
	if string(words[0]) == "hold" {
		in.held[string(p.name)] = true
	}
	switch state := string(words[2]); state {
	case "installed":
	case "not-installed", "config-files":
		return
	case "triggers-pending", "triggers-awaited":
		in.broken = append(in.broken, string(p.name)+" is in "+state)
	default:
		in.broken = append(in.broken, string(p.name)+" is "+state)
		return
	}
	if _, second := in.versions[string(p.name)]; !second {
		in.versions[string(p.name)] = string(p.version)
	}
	if len(p.provides) == 0 {
		return
	}
	for virtual := range bytes.SplitSeq(p.provides, []byte(",")) {
		virtual, _, _ = bytes.Cut(bytes.TrimSpace(virtual), []byte(" "))
		if len(virtual) > 0 {
			in.provided[string(virtual)] = true
		}
	}
}
