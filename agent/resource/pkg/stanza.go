package pkg

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"

	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

// maxLine bounds a line of the archives' lists: longer ones, as of packages with thousands of Provides, are cut short.
const maxLine = 1 << 20

// stanza is a package in a list of an archive, or in dpkg's status.
type stanza struct {
	name, version, arch, multiArch, status string
	depends, preDepends                    string
	conflicts, breaks, provides, conffiles string
	filename, sha256                       string
	size                                   int64
}

// readStanzas calls f for each stanza of a list whose package is wanted. A nil wanted means all.
func readStanzas(r io.Reader, wanted map[string]bool, f func(*stanza)) error {
	in := bufio.NewReaderSize(r, maxLine)
	var s *stanza
	skip, last := false, ""
	end := func() {
		if s != nil && s.name != "" {
			f(s)
		}
		s, skip, last = nil, false, ""
	}
	for {
		line, err := in.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			// The rest of an overlong line begins with no key that counts.
			err = nil
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			end()
		} else if !skip {
			if s == nil {
				s = &stanza{}
			}
			last = s.set(line, last)
			skip = s.name != "" && wanted != nil && !wanted[s.name]
			if skip {
				s = nil
				skipStanza(in)
			}
		}
		if err == io.EOF {
			end()
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// skipStanza goes to before the empty line that ends a stanza, or stays where the buffer does not reach that far: most of a
// list is of no interest.
func skipStanza(in *bufio.Reader) {
	ahead, _ := in.Peek(in.Buffered())
	if i := bytes.Index(ahead, []byte("\n\n")); i >= 0 && ahead[0] != '\n' {
		_, _ = in.Discard(i + 1)
	}
}

// set takes in a line, and returns the field that lines of continuation belong to.
func (s *stanza) set(line []byte, last string) string {
	if line[0] == ' ' || line[0] == '\t' {
		if last == "Conffiles" {
			s.conffiles += string(line) + "\n"
		}
		return last
	}
	key, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return last
	}
	var to *string
	switch string(key) {
	case "Package":
		to = &s.name
	case "Version":
		to = &s.version
	case "Architecture":
		to = &s.arch
	case "Multi-Arch":
		to = &s.multiArch
	case "Status":
		to = &s.status
	case "Depends":
		to = &s.depends
	case "Pre-Depends":
		to = &s.preDepends
	case "Conflicts":
		to = &s.conflicts
	case "Breaks":
		to = &s.breaks
	case "Provides":
		to = &s.provides
	case "Filename":
		to = &s.filename
	case "SHA256":
		to = &s.sha256
	case "Size":
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err == nil {
			s.size = n
		}
	case "Conffiles":
		return "Conffiles"
	}
	if to != nil {
		*to = string(bytes.TrimSpace(value))
	}
	return ""
}

// readStatus returns all of dpkg's status file.
func (a *apt) readStatus() ([]*stanza, error) {
	content, err := conffile.Read(a.host, statusPath, maxStatus)
	if err != nil {
		return nil, fmt.Errorf("cannot read the packages' state: %w", err)
	}
	var list []*stanza
	err = readStanzas(bytes.NewReader(content), nil, func(s *stanza) { list = append(list, s) })
	return list, err
}

// readList reads a list of an archive.
func (a *apt) readList(name string, wanted map[string]bool, f func(*stanza)) error {
	dir, base, err := conffile.Parent(a.host, listsDir+"/"+name, false)
	if err != nil {
		return err
	}
	defer dir.Close()
	file, err := dir.Open(base)
	if err != nil {
		return err
	}
	defer file.Close()
	return readStanzas(file, wanted, f)
}
