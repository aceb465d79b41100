package pkg

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
)

const (
	// dnfConf is read by dnf 4 and by dnf 5 alike; a directory of drop-ins has only dnf 5.
	dnfConf    = "/etc/dnf/dnf.conf"
	maxDnfConf = 1 << 20
	holdMark   = "# Held by provisionr-agent:"
)

// excluded returns the packages that our line of dnf.conf holds.
func (d *dnf) excluded() ([]string, error) {
	content, err := conffile.Read(d.host, dnfConf, maxDnfConf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for line := range strings.Lines(string(content)) {
		if names, ok := strings.CutPrefix(line, holdMark); ok {
			return strings.Fields(names), nil
		}
	}
	return nil, err
}

// setHolds writes the option excludepkgs of dnf.conf: what is excluded is not upgraded.
func (d *dnf) setHolds(_ context.Context, hold, release []string) error {
	content, err := conffile.Read(d.host, dnfConf, maxDnfConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	held, err := d.excluded()
	if err != nil {
		return err
	}
	held = slices.DeleteFunc(append(held, hold...), func(name string) bool { return slices.Contains(release, name) })
	slices.Sort(held)
	return conffile.Apply(d.host, &conffile.File{Path: dnfConf, Content: []byte(withHolds(string(content), slices.Compact(held)))})
}

// withHolds puts our exclusion at the head of the section main. What the file excludes itself stays excluded: of two lines
// of one option only the last counts, so that its own is set aside in a comment, and brought back when ours goes.
func withHolds(content string, held []string) string {
	const aside = "#provisionr# "
	var others []string
	var lines []string
	ours := false
	for line := range strings.Lines(content) {
		line = strings.TrimRight(line, "\n")
		if ours {
			ours = false
			continue // the option below our mark
		}
		if strings.HasPrefix(line, holdMark) {
			ours = true
			continue
		}
		line = strings.TrimPrefix(line, aside)
		key, value, ok := strings.Cut(line, "=")
		if ok && slices.Contains([]string{"exclude", "excludepkgs"}, strings.TrimSpace(key)) && len(held) > 0 {
			others = append(others, strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == ',' })...)
			line = aside + line
		}
		lines = append(lines, line)
	}
	if len(held) > 0 {
		option := []string{holdMark + " " + strings.Join(held, " "), "excludepkgs=" + strings.Join(append(others, held...), " ")}
		at := slices.IndexFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "[main]" })
		if at < 0 {
			lines, at = append([]string{"[main]"}, lines...), 0
		}
		lines = slices.Insert(lines, at+1, option...)
	}
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}
