package spec

import (
	"strings"

	"go.yaml.in/yaml/v3"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// maxShown bounds the text of one side of a change.
const maxShown = 200

// Diff lists the fields that users can write and in which two objects of one kind differ, in the order of the proto
// file. A side that is nil counts as empty. Items of lists that have a name or a path are matched by it, others by their
// place; apiVersion, kind and the name itself are left out. Both objects should have had Default.
func Diff(before, after *provisionrv1.Object) []*provisionrv1.FieldChange {
	var changes []*provisionrv1.FieldChange
	diffNodes(tree(before), tree(after), "", &changes)
	return changes
}

func tree(o *provisionrv1.Object) *yaml.Node {
	m := Message(o)
	if m == nil {
		return nil
	}
	n := node(m.ProtoReflect(), true)
	kept := mapping()
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch key := n.Content[i]; key.Value {
		case "apiVersion", "kind":
		case "metadata":
			if rest := without(n.Content[i+1], "name"); len(rest.Content) > 0 {
				kept.Content = append(kept.Content, key, rest)
			}
		default:
			kept.Content = append(kept.Content, key, n.Content[i+1])
		}
	}
	return kept
}

func without(n *yaml.Node, name string) *yaml.Node {
	out := mapping()
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != name {
			out.Content = append(out.Content, n.Content[i], n.Content[i+1])
		}
	}
	return out
}

// entry is a child of a mapping or list with the step that leads to it.
type entry struct {
	step string
	node *yaml.Node
}

// children returns nil for scalars and for lists of scalars, which are compared as one value.
func children(n *yaml.Node) []entry {
	if n == nil {
		return nil
	}
	var out []entry
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			out = append(out, entry{"." + n.Content[i].Value, n.Content[i+1]})
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			if c.Kind != yaml.MappingNode {
				return nil
			}
			out = append(out, entry{itemStep(c, i), c})
		}
	}
	return out
}

func itemStep(item *yaml.Node, index int) string {
	for i := 0; i+1 < len(item.Content); i += 2 {
		if k := item.Content[i].Value; k == "name" || k == "path" {
			return "[" + item.Content[i+1].Value + "]"
		}
	}
	return at("", index)
}

func diffNodes(before, after *yaml.Node, path string, changes *[]*provisionrv1.FieldChange) {
	old, now := children(before), children(after)
	if old == nil && now == nil {
		if a, b := inline(before), inline(after); a != b {
			*changes = append(*changes, &provisionrv1.FieldChange{Path: strings.TrimPrefix(path, "."), Before: shorten(a, b), After: shorten(b, a)})
		}
		return
	}
	find := func(entries []entry, step string) *yaml.Node {
		for _, e := range entries {
			if e.step == step {
				return e.node
			}
		}
		return nil
	}
	for _, e := range old {
		diffNodes(e.node, find(now, e.step), path+e.step, changes)
	}
	for _, e := range now {
		if find(old, e.step) == nil {
			diffNodes(nil, e.node, path+e.step, changes)
		}
	}
}

// inline writes a scalar, or a list of scalars, on one line.
func inline(n *yaml.Node) string {
	switch {
	case n == nil:
		return ""
	case n.Kind == yaml.SequenceNode:
		var parts []string
		for _, c := range n.Content {
			parts = append(parts, inline(c))
		}
		return strings.Join(parts, ", ")
	case n.Kind == yaml.MappingNode:
		return "{}"
	}
	return n.Value
}

// shorten keeps, of a long text, the part around its first difference from the other.
func shorten(s, other string) string {
	if len(s) <= maxShown {
		return s
	}
	i := 0
	for i < len(s) && i < len(other) && s[i] == other[i] {
		i++
	}
	start := min(max(0, i-40), len(s)-maxShown)
	out := strings.ToValidUTF8(s[start:start+maxShown], "")
	if start > 0 {
		out = "…" + out
	}
	if start+maxShown < len(s) {
		out += "…"
	}
	return out
}
