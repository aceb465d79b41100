package tmpl

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
)

// secretFunc is the name of the function that gives the value of a secret.
const secretFunc = "secret"

var (
	errNoSecrets = errors.New("there are no secrets to be had here")
	// errSecret wraps what the owner of the data said about a secret: it is no value.
	errSecret = errors.New("the secret cannot be had")
)

// Secrets returns the names of the secrets that a template refers to, in whatever branch, sorted. A text that is no
// template refers to none.
func Secrets(text string) []string {
	if !strings.Contains(text, secretFunc) {
		return nil // most templates: parsing costs more than looking
	}
	t, err := template.New(name).Funcs((&budget{}).funcs()).Parse(text)
	if err != nil {
		return nil
	}
	names, err := referred(t)
	if err != nil {
		return nil
	}
	return names
}

// reveal is the function secret.
func (b *budget) reveal(name string) (string, error) {
	if b.secret == nil {
		return "", errNoSecrets
	}
	value, err := b.secret(name)
	if err != nil {
		return "", &secretError{err}
	}
	b.told = true
	return value, b.spend(len(value))
}

// secretError is an error of Data.Secret, whose kind callers may want to know.
type secretError struct{ err error }

func (e *secretError) Error() string   { return errSecret.Error() + ": " + e.err.Error() }
func (e *secretError) Unwrap() []error { return []error{errSecret, e.err} }

// discreet takes the details off an error that came after a value was told: they may repeat it, in whatever shape.
func (b *budget) discreet(err *Error) *Error {
	if !b.told || errors.Is(err.cause, errSecret) {
		return err
	}
	where, _, ok := strings.Cut(err.Message, ">: ")
	if !ok {
		return err
	}
	err.cause = nil
	err.Message = where + ">: fails; why is left out, for it could tell a secret"
	return err
}

// referred returns the names in all calls of secret, and refuses calls whose argument is no literal: nobody could tell
// beforehand what such a template needs.
func referred(t *template.Template) ([]string, error) {
	names := map[string]bool{}
	var bad *Error
	for _, defined := range t.Templates() {
		if defined.Tree == nil || defined.Root == nil {
			continue
		}
		walk(defined.Root, func(c *parse.CommandNode, first bool) {
			var called bool
			for i, arg := range c.Args {
				id, ok := arg.(*parse.IdentifierNode)
				called = called || ok && id.Ident == secretFunc && i == 0
				if ok && id.Ident == secretFunc && i > 0 && bad == nil {
					bad = misuse(defined.Tree, c)
				}
			}
			if !called {
				return
			}
			var literal *parse.StringNode
			if len(c.Args) == 2 && first {
				literal, _ = c.Args[1].(*parse.StringNode)
			}
			switch {
			case literal != nil:
				names[literal.Text] = true
			case bad == nil:
				bad = misuse(defined.Tree, c)
			}
		})
	}
	if bad != nil {
		return nil, bad
	}
	return slices.Sorted(maps.Keys(names)), nil
}

func misuse(tree *parse.Tree, n parse.Node) *Error {
	where, context := tree.ErrorContext(n)
	err := positioned(errors.New("template: " + where + ": <" + context + ">: secret takes one name in quotes, as secret \"db-password\""))
	return err
}

// walk calls f with every command below a node, and whether it is the first of its pipeline.
func walk(n parse.Node, f func(c *parse.CommandNode, first bool)) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, child := range n.Nodes {
				walk(child, f)
			}
		}
	case *parse.ActionNode:
		walk(n.Pipe, f)
	case *parse.TemplateNode:
		walk(n.Pipe, f)
	case *parse.IfNode:
		walkBranch(&n.BranchNode, f)
	case *parse.RangeNode:
		walkBranch(&n.BranchNode, f)
	case *parse.WithNode:
		walkBranch(&n.BranchNode, f)
	case *parse.PipeNode:
		if n != nil {
			for i, c := range n.Cmds {
				f(c, i == 0)
				for _, arg := range c.Args {
					walk(arg, f)
				}
			}
		}
	case *parse.ChainNode:
		walk(n.Node, f)
	}
}

func walkBranch(b *parse.BranchNode, f func(c *parse.CommandNode, first bool)) {
	walk(b.Pipe, f)
	walk(b.List, f)
	walk(b.ElseList, f)
}
