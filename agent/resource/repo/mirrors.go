package repo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/agent/converge"
	"github.com/provisionr/provisionr/agent/host"
	"github.com/provisionr/provisionr/agent/resource/internal/conffile"
	"github.com/provisionr/provisionr/agent/resource/internal/textdiff"
)

const (
	savedPath = conffile.StateDir + "/mirrors.json"
	maxSaved  = 16 << 20
	maxFile   = 1 << 20
)

// saved is a source of the system as it was, and the hash of what we made of it.
type saved struct {
	Original string `json:"original"`
	Written  string `json:"written"`
}

// mirrors sends the system's own sources to the network's mirrors.
type mirrors struct {
	host   *host.Host
	layout layout
	// by is what the beginning of a URI becomes.
	by map[string]string
}

// edit is a file that is to be changed.
type edit struct {
	path, before, after string
}

// Name implements converge.Resource.
func (m *mirrors) Name() string { return "proxy/mirrors" }

// After implements converge.Ordered.
func (m *mirrors) After() []string { return nil }

// Triggers implements converge.Triggered.
func (m *mirrors) Triggers() []converge.Trigger {
	return []converge.Trigger{{Kind: converge.OnFile, Name: m.layout.sources}, {Kind: converge.OnFile, Name: "/etc/apt/sources.list"}}
}

// Check implements converge.Resource.
func (m *mirrors) Check(context.Context) (converge.Diff, error) {
	edits, _, err := m.plan()
	var diffs []string
	for _, e := range edits {
		diffs = append(diffs, textdiff.Contents(e.path, []byte(e.before), []byte(e.after), false))
	}
	return converge.Diff{Text: textdiff.Join(diffs...)}, err
}

// Apply implements converge.Resource. What was there is written down before it is changed.
func (m *mirrors) Apply(context.Context) error {
	edits, keep, err := m.plan()
	if err != nil {
		return err
	}
	content, err := json.Marshal(keep)
	if err != nil {
		return err
	}
	note := conffile.File{Path: savedPath, Content: content, Mode: 0o600}
	if len(keep) > 0 {
		if err := conffile.Apply(m.host, &note); err != nil {
			return err
		}
	}
	for _, e := range edits {
		// Sources with a password in them may not be for everybody to read.
		f, err := conffile.Edited(m.host, e.path, []byte(e.after))
		if err == nil {
			err = conffile.Apply(m.host, &f)
		}
		if err != nil {
			return err
		}
	}
	if len(keep) > 0 {
		return nil
	}
	note.Absent = true
	return conffile.Apply(m.host, &note)
}

// plan returns what to change, and what to keep of what was there.
func (m *mirrors) plan() ([]edit, map[string]saved, error) {
	was, err := m.saved()
	if err != nil || len(was) == 0 && len(m.by) == 0 {
		return nil, nil, err
	}
	paths, err := m.files()
	if err != nil {
		return nil, nil, err
	}
	var edits []edit
	keep := make(map[string]saved)
	for _, path := range paths {
		content, err := conffile.Read(m.host, path, maxFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		is := string(content)
		if strings.HasPrefix(is, header) || len(is) > maxFile {
			continue
		}
		original := is
		if old, ok := was[path]; ok && old.Written == digest(is) {
			original = old.Original
		}
		want := m.rewrite(original)
		if want != original {
			keep[path] = saved{original, digest(want)}
		}
		if want != is {
			edits = append(edits, edit{path, is, want})
		}
	}
	return edits, keep, nil
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func (m *mirrors) saved() (map[string]saved, error) {
	content, err := conffile.Read(m.host, savedPath, maxSaved)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var was map[string]saved
	if err := json.Unmarshal(content, &was); err != nil {
		return nil, err
	}
	return was, nil
}

// files are the system's sources; /etc/apt/mirrors has lists that sources of Debian's cloud images refer to.
func (m *mirrors) files() ([]string, error) {
	var paths []string
	places := [][2]string{{m.layout.sources, "*" + m.layout.ending}}
	if m.layout.name == "apt" {
		paths = append(paths, "/etc/apt/sources.list")
		places = append(places, [2]string{m.layout.sources, "*.list"}, [2]string{"/etc/apt/mirrors", "*.list"})
	}
	for _, p := range places {
		names, err := conffile.List(m.host, p[0], p[1])
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			paths = append(paths, p[0]+"/"+name)
		}
	}
	return paths, nil
}

// rewrite changes the URIs of a file: words of lines that are no comments, and values of options.
func (m *mirrors) rewrite(text string) string {
	keys := slices.SortedFunc(maps.Keys(m.by), func(a, b string) int { return len(b) - len(a) })
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			b.WriteString(line)
			continue
		}
		for line != "" {
			end := strings.IndexAny(line, " \t\n=,")
			if end < 0 {
				end = len(line)
			}
			b.WriteString(m.uri(line[:end], keys))
			b.WriteString(line[end:min(end+1, len(line))])
			line = line[min(end+1, len(line)):]
		}
	}
	return b.String()
}

// uri returns what a word becomes. Keys come longest first, and mean whole elements of a path.
func (m *mirrors) uri(word string, keys []string) string {
	for _, key := range keys {
		rest, ok := strings.CutPrefix(word, key)
		if ok && (rest == "" || strings.HasSuffix(key, "/") || rest[0] == '/') {
			return m.by[key] + rest
		}
	}
	return word
}
