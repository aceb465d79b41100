package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/provisionr/provisionr/internal/errs"
)

// maxProblems bounds the problems that one error tells.
const maxProblems = 50

// Problem is one fault of a manifest.
type Problem struct {
	// File, Line and Column say where it is; Line is 0 where there is no text, as on the server.
	File         string
	Line, Column int
	// Object is KIND/NAME, used where there is no text.
	Object string
	// Path is the field's path in the manifest, as spec.files[0].path; empty for the whole document.
	Path string
	// Message is lower case; Hint says what to write instead and may be empty.
	Message, Hint string
}

func (p Problem) String() string {
	var parts []string
	switch {
	case p.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column))
	case p.File != "":
		parts = append(parts, p.File)
	case p.Object != "":
		parts = append(parts, p.Object)
	}
	if p.Path != "" {
		parts = append(parts, p.Path)
	}
	text := strings.Join(append(parts, p.Message), ": ")
	if p.Hint != "" {
		text += " (" + p.Hint + ")"
	}
	return text
}

// Problems are all that is wrong with a set of manifests, in order of position.
type Problems []Problem

// Error has a problem on every line.
func (ps Problems) Error() string {
	lines := make([]string, 0, len(ps))
	for i, p := range ps {
		if i == maxProblems {
			lines = append(lines, fmt.Sprintf("and %d more problems", len(ps)-i))
			break
		}
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// err returns nil for no problems, else an *errs.Error of kind Invalid that wraps them.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return errs.New(errs.Invalid, "%w", ps)
}
