package tmpl

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/template"
)

const (
	// maxSteps bounds the turns of all loops and the calls of all defined templates of one rendering.
	maxSteps = 500_000
	// maxWork bounds the bytes that the functions of one rendering take and give.
	maxWork = 64 << 20
	// maxVerbs bounds the verbs of one printf format: each may be as wide as package fmt allows, 1e6 columns.
	maxVerbs = 32
	// stepFunc is the name of the call that meter puts in. It counts a step and prints nothing.
	stepFunc = "_step"
)

var (
	errSteps = errors.New("the template takes too many steps")
	errWork  = errors.New("the template's values grow too large")
)

// budget is what one rendering may still use up.
type budget struct {
	steps, work int
	// secret answers values; told says that one was given, so that errors may have something to hide.
	secret func(name string) (string, error)
	told   bool
}

func (b *budget) step() (string, error) {
	if b.steps--; b.steps < 0 {
		return "", errSteps
	}
	return "", nil
}

func (b *budget) spend(n int) error {
	if b.work -= n; n > MaxOutput || b.work < 0 {
		return errWork
	}
	return nil
}

// funcs are the functions of a template. They replace the built-in ones that could make values of any size.
func (b *budget) funcs() template.FuncMap {
	one := func(f func(string) string) func(string) (string, error) {
		return func(s string) (string, error) {
			if err := b.spend(len(s)); err != nil {
				return "", err
			}
			out := f(s)
			return out, b.spend(len(out))
		}
	}
	many := func(f func(...any) string) func(...any) (string, error) {
		return func(args ...any) (string, error) {
			if err := b.spend(size(args)); err != nil {
				return "", err
			}
			out := f(args...)
			return out, b.spend(len(out))
		}
	}
	return template.FuncMap{
		stepFunc: b.step,
		"join":   b.join,
		"upper":  one(strings.ToUpper),
		"lower":  one(strings.ToLower),
		"quote":  one(strconv.Quote),
		"printf": b.printf, secretFunc: b.reveal,
		"print": many(fmt.Sprint), "println": many(fmt.Sprintln),
		"html": many(template.HTMLEscaper), "js": many(template.JSEscaper), "urlquery": many(template.URLQueryEscaper),
	}
}

// size is the number of bytes of the strings among args.
func size(args []any) int {
	n := 0
	for _, a := range args {
		if s, ok := a.(string); ok {
			n += len(s)
		}
	}
	return n
}

func (b *budget) printf(format string, args ...any) (string, error) {
	verbs := strings.Count(format, "%")
	if verbs > maxVerbs {
		return "", fmt.Errorf("a format has at most %d verbs", maxVerbs)
	}
	// An argument may be printed by every verb, as in "%[1]s%[1]s".
	if err := b.spend(len(format) + verbs*size(args)); err != nil {
		return "", err
	}
	out := fmt.Sprintf(format, args...)
	return out, b.spend(len(out))
}

// join takes the names of members as well as strings.
func (b *budget) join(list any, separator string) (string, error) {
	var parts []string
	switch list := list.(type) {
	case []string:
		parts = list
	case []Member:
		for _, m := range list {
			parts = append(parts, m.Name)
		}
	default:
		return "", fmt.Errorf("join takes a list, not %T", list)
	}
	n := len(separator) * len(parts)
	for _, p := range parts {
		n += len(p)
	}
	if err := b.spend(n); err != nil {
		return "", err
	}
	return strings.Join(parts, separator), nil
}
