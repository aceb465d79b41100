package spec

import (
	"fmt"
	"strings"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// position is a place in a file, from 1.
type position struct{ line, column int }

// place is where a field is: at its key, and at its value.
type place struct {
	key, value position
	// firstLine is the line on which the text of a scalar begins: below the key for a block scalar.
	firstLine int
}

// document is one object of a manifest with what is known of its text.
type document struct {
	object *provisionrv1.Object
	file   string
	// places are by path; nil where the object did not come from text.
	places map[string]place
	// failed are paths that have a problem: they and what is below them are not checked further.
	failed map[string]bool
	// misspelt are messages with an unknown field: that they lack something else is most likely the same mistake.
	misspelt map[string]bool
	problems Problems
}

func newDocument(file string) *document {
	return &document{file: file, places: map[string]place{}, failed: map[string]bool{}, misspelt: map[string]bool{}}
}

// complain notes a problem at the value of the path, or at the key of the nearest parent that the text has.
func (d *document) complain(path, hint, format string, args ...any) {
	if d.tainted(path) {
		return
	}
	d.failed[path] = true
	d.complainAt(d.find(path), path, hint, format, args...)
}

func (d *document) complainAt(at position, path, hint, format string, args ...any) {
	d.failed[path] = true
	p := Problem{File: d.file, Line: at.line, Column: at.column, Path: path, Message: fmt.Sprintf(format, args...), Hint: hint}
	if d.object != nil {
		p.Object = KindOf(d.object) + "/" + Name(d.object)
	}
	d.problems = append(d.problems, p)
}

// tainted reports whether the path or one of its parents has a problem already.
func (d *document) tainted(path string) bool {
	for {
		if d.failed[path] {
			return true
		}
		if path == "" {
			return false
		}
		path = parent(path)
	}
}

func (d *document) find(path string) position {
	if p, ok := d.places[path]; ok {
		return p.value
	}
	for path != "" {
		path = parent(path)
		if p, ok := d.places[path]; ok {
			return p.key
		}
	}
	return position{}
}

// parent cuts the last step off a path: spec.files[0].path, spec.files[0], spec.files, spec, "".
func parent(path string) string {
	if strings.HasSuffix(path, "]") {
		// A map key in quotes may hold anything, so look for the bracket that opens it.
		if i := strings.LastIndex(path, `["`); i >= 0 && strings.HasSuffix(path, `"]`) {
			return path[:i]
		}
		return path[:strings.LastIndexByte(path, '[')]
	}
	if i := strings.LastIndexAny(path, ".]"); i >= 0 {
		if path[i] == ']' {
			return path[:i+1]
		}
		return path[:i]
	}
	return ""
}

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

func at(path string, index int) string { return fmt.Sprintf("%s[%d]", path, index) }

func under(path, key string) string { return fmt.Sprintf("%s[%q]", path, key) }
