package tmpl

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"text/template"
	"text/template/parse"
)

// MaxOutput is the largest rendered text in bytes.
const MaxOutput = 1 << 20

// name stands before the position in the errors of text/template.
const name = "template"

// Error is a fault of a template's text.
type Error struct {
	// Line and Column count from 1; Column is 0 where the parser does not tell it.
	Line, Column int
	// Message is lower case and has no position.
	Message string
	cause   error
}

// Unwrap returns what ended the rendering, as the error of Data.Secret; nil for a fault of the text itself.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) Error() string {
	if e.Column == 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.Message)
	}
	return fmt.Sprintf("line %d:%d: %s", e.Line, e.Column, e.Message)
}

// Render executes the template over data. Its errors are *Error.
func Render(text string, data Data) ([]byte, error) {
	b := &budget{steps: maxSteps, work: maxWork, secret: data.Secret}
	t, err := template.New(name).Option("missingkey=error").Funcs(b.funcs()).Parse(text)
	if err != nil {
		return nil, positioned(err)
	}
	if _, err := referred(t); err != nil {
		return nil, err
	}
	if err := b.meter(t); err != nil {
		return nil, err
	}
	var out bounded
	if err := t.Execute(&out, visible{data.Machine, data.Pool, data.Vars}); err != nil {
		return nil, b.discreet(positioned(err))
	}
	return out.Bytes(), nil
}

// Check reports whether the template parses and renders over the data, which Sample makes, as each of the pool's
// first and last machines. Branches that the data does not enter are only parsed.
func Check(text string, data Data) error {
	if _, err := Render(text, data); err != nil {
		return err
	}
	if n := len(data.Pool.Members); n > 1 {
		last := data.Pool.Members[n-1]
		data.Machine.Name, data.Machine.FQDN, data.Machine.Index, data.Machine.Address = last.Name, last.FQDN, last.Index, last.Address
		_, err := Render(text, data)
		return err
	}
	return nil
}

// errOutput ends an execution that writes too much.
var errOutput = errors.New("the output is larger than 1 MiB")

// bounded is a buffer of at most MaxOutput bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > MaxOutput {
		return 0, errOutput
	}
	return b.Buffer.Write(p)
}

// position matches the beginning of the errors of text/template, executing the part of an execution error that only
// repeats the template's name. Programs that start often see neither: they are compiled at the first error.
var (
	position = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^template: ` + name + `:(\d+)(?::(\d+))?: (?s:(.*))$`)
	})
	executing = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^executing "[^"]*" at (<.*?>): `) })
)

func positioned(err error) *Error {
	if errors.Is(err, errOutput) {
		return &Error{Line: 1, Message: errOutput.Error()}
	}
	for _, bound := range []error{errSteps, errWork} {
		if errors.Is(err, bound) {
			return &Error{Line: 1, Message: bound.Error()}
		}
	}
	m := position().FindStringSubmatch(err.Error())
	if m == nil {
		return &Error{Line: 1, Message: strings.TrimPrefix(err.Error(), "template: "), cause: err}
	}
	e := &Error{cause: err, Message: executing().ReplaceAllString(m[3], "$1: ")}
	e.Line, _ = strconv.Atoi(m[1])
	if m[2] != "" {
		column, _ := strconv.Atoi(m[2]) // text/template counts bytes from 0
		e.Column = column + 1
	}
	return e
}

// meter puts a call of the budget's step at the start of every loop body and every defined template, so that neither a
// loop without output nor a recursion can go on for long.
func (b *budget) meter(t *template.Template) error {
	probe, err := template.New(name).Funcs(b.funcs()).Parse("{{" + stepFunc + "}}")
	if err != nil {
		return &Error{Line: 1, Message: err.Error()}
	}
	step := probe.Root.Nodes[0]
	for _, defined := range t.Templates() {
		if defined.Tree != nil && defined.Root != nil {
			meterList(defined.Root, step)
			defined.Root.Nodes = append([]parse.Node{step}, defined.Root.Nodes...)
		}
	}
	return nil
}

func meterList(list *parse.ListNode, step parse.Node) {
	if list == nil {
		return
	}
	for _, n := range list.Nodes {
		switch n := n.(type) {
		case *parse.RangeNode:
			meterList(n.List, step)
			meterList(n.ElseList, step)
			n.List.Nodes = append([]parse.Node{step}, n.List.Nodes...)
		case *parse.IfNode:
			meterList(n.List, step)
			meterList(n.ElseList, step)
		case *parse.WithNode:
			meterList(n.List, step)
			meterList(n.ElseList, step)
		}
	}
}
