package spec

import (
	"fmt"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// maxNodes and maxDepth bound what aliases may blow a document up to.
	maxNodes = 200_000
	maxDepth = 64

	nullTag  = "!!null"
	strTag   = "!!str"
	intTag   = "!!int"
	floatTag = "!!float"
	boolTag  = "!!bool"
	mergeTag = "!!merge"

	timestampTag = "!!timestamp"
)

// decoder walks one document.
type decoder struct {
	*document
	nodes int
	full  bool
}

// decode fills the document's object from its root node.
func decode(d *document, root *yaml.Node) {
	dec := &decoder{document: d}
	d.places[""] = place{key: where(root), value: where(root)}
	root = dec.follow(root, "")
	if root == nil {
		return
	}
	if root.Kind != yaml.MappingNode {
		d.complain("", "a manifest begins with apiVersion: "+APIVersion, "must be an object with fields, not %s", describe(root))
		return
	}
	if !dec.identify(root) {
		return
	}
	dec.message(root, Message(d.object).ProtoReflect(), "", 0)
}

// identify reads apiVersion and kind, which decide about everything else.
func (d *decoder) identify(root *yaml.Node) bool {
	var kindNode, versionNode *yaml.Node
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch root.Content[i].Value {
		case "kind":
			kindNode = root.Content[i+1]
		case "apiVersion":
			versionNode = root.Content[i+1]
		}
	}
	if kindNode == nil {
		d.complain("kind", "one of "+list(Kinds()), "is missing")
		return false
	}
	d.places["kind"] = place{key: where(kindNode), value: where(kindNode)}
	for _, k := range kinds() {
		if k.name == kindNode.Value {
			d.object = k.make()
		}
	}
	if d.object == nil {
		d.unknownKind(kindNode.Value)
		return false
	}
	if versionNode == nil {
		d.complain("apiVersion", "begin with apiVersion: "+APIVersion, "is missing")
	}
	return true
}

func (d *decoder) unknownKind(name string) {
	if instead, ok := notWritten(name); ok {
		d.complain("kind", instead, "%s cannot be written", show(name))
		return
	}
	hint := "one of " + list(Kinds())
	if near := nearest(name, Kinds()); near != "" {
		hint = "did you mean " + near + "?"
	}
	d.complain("kind", hint, "there is no kind %s", show(name))
}

// follow resolves aliases and counts nodes. It returns nil, after a complaint, where a bound is passed.
func (d *decoder) follow(node *yaml.Node, path string) *yaml.Node {
	if d.full {
		return nil
	}
	for hops := 0; node.Kind == yaml.AliasNode; hops++ {
		if hops > maxDepth || node.Alias == nil {
			d.complain(path, "", "the alias leads nowhere")
			return nil
		}
		node = node.Alias
	}
	if d.nodes++; d.nodes > maxNodes {
		d.full = true
		d.complainAt(where(node), path, "write less, or use fewer aliases", "the document is larger than %d values", maxNodes)
		return nil
	}
	return node
}

// message fills m from a mapping.
func (d *decoder) message(node *yaml.Node, m protoreflect.Message, path string, depth int) {
	if node = d.follow(node, path); node == nil || !d.shallow(depth, path) {
		return
	}
	if node.Kind != yaml.MappingNode {
		d.complain(path, "", "must be an object with fields, not %s", describe(node))
		return
	}
	seen := map[string]position{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if !d.key(key, value, path, seen, func(name string) string { return join(path, name) }) {
			continue
		}
		field := m.Descriptor().Fields().ByJSONName(key.Value)
		switch {
		case field == nil:
			d.unknownField(key, m.Descriptor(), path)
		case OutputOnly(field):
			d.complainAt(where(key), join(path, key.Value), "remove it: Provisionr writes this field", "cannot be set")
		default:
			if other := sibling(m, field); other != "" {
				d.complainAt(where(key), join(path, key.Value), "remove one of them", "cannot be given together with %s", other)
				continue
			}
			d.field(value, m, field, join(path, key.Value), depth+1)
		}
	}
}

// sibling returns the field that is set already of those that exclude each other with the field; "" if there is none.
func sibling(m protoreflect.Message, field protoreflect.FieldDescriptor) string {
	group := field.ContainingOneof()
	if group == nil || group.IsSynthetic() {
		return ""
	}
	if set := m.WhichOneof(group); set != nil && set != field {
		return set.JSONName()
	}
	return ""
}

// key checks the key of a mapping and notes its place; false means that the value is to be left out.
func (d *decoder) key(key, value *yaml.Node, path string, seen map[string]position, full func(string) string) bool {
	switch {
	case key.ShortTag() == mergeTag:
		d.complainAt(where(key), path, "write the fields out, or use an alias for a whole value", "merge keys are not supported")
		return false
	case key.Kind != yaml.ScalarNode:
		d.complainAt(where(key), path, "", "a field name must be a word, not %s", describe(key))
		return false
	}
	p := full(key.Value)
	if first, ok := seen[key.Value]; ok {
		d.complainAt(where(key), p, "", "is given twice, first on line %d", first.line)
		return false
	}
	seen[key.Value] = where(key)
	first := value.Line
	if value.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		first++
	}
	d.places[p] = place{key: where(key), value: where(value), firstLine: first}
	return true
}

func (d *decoder) unknownField(key *yaml.Node, m protoreflect.MessageDescriptor, path string) {
	d.misspelt[path] = true
	var names []string
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); !OutputOnly(f) {
			names = append(names, f.JSONName())
		}
	}
	hint := "fields here: " + list(names)
	if near := nearest(key.Value, names); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
		d.failed[join(path, near)] = true // that it is missing is this very mistake
	}
	d.complainAt(where(key), join(path, key.Value), hint, "there is no such field")
}

// field sets one field of m.
func (d *decoder) field(node *yaml.Node, m protoreflect.Message, f protoreflect.FieldDescriptor, path string, depth int) {
	if node = d.follow(node, path); node == nil || !d.shallow(depth, path) {
		return
	}
	composite := f.IsList() || f.IsMap() || f.Message() != nil
	if node.Kind == yaml.ScalarNode && node.ShortTag() == nullTag && composite {
		return // `packages:` with every item commented out is an empty list
	}
	switch {
	case f.IsMap():
		d.mapField(node, m, f, path)
	case f.IsList():
		d.list(node, m, f, path, depth)
	default:
		if v, ok := d.value(node, m.NewField, f, path, depth); ok {
			m.Set(f, v)
		}
	}
}

func (d *decoder) list(node *yaml.Node, m protoreflect.Message, f protoreflect.FieldDescriptor, path string, depth int) {
	if node.Kind != yaml.SequenceNode {
		d.complain(path, "begin each item with a dash", "must be a list, not %s", describe(node))
		return
	}
	items := m.Mutable(f).List()
	element := func(protoreflect.FieldDescriptor) protoreflect.Value { return items.NewElement() }
	for i, item := range node.Content {
		p := at(path, i)
		d.places[p] = place{key: where(item), value: where(item), firstLine: item.Line}
		if item = d.follow(item, p); item == nil {
			return
		}
		v, ok := d.value(item, element, f, p, depth+1)
		if !ok {
			v = items.NewElement() // keeps the positions of the items after it right
		}
		items.Append(v)
	}
}

func (d *decoder) mapField(node *yaml.Node, m protoreflect.Message, f protoreflect.FieldDescriptor, path string) {
	if node.Kind != yaml.MappingNode {
		d.complain(path, "", "must be keys with values, not %s", describe(node))
		return
	}
	entries, seen := m.Mutable(f).Map(), map[string]position{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if !d.key(key, value, path, seen, func(name string) string { return under(path, name) }) {
			continue
		}
		p := under(path, key.Value)
		if value = d.follow(value, p); value == nil {
			return
		}
		if v, ok := d.scalar(value, f.MapValue(), p); ok {
			entries.Set(protoreflect.ValueOfString(key.Value).MapKey(), v)
		}
	}
}

// value decodes a message or a scalar; empty makes an empty message.
func (d *decoder) value(node *yaml.Node, empty func(protoreflect.FieldDescriptor) protoreflect.Value, f protoreflect.FieldDescriptor, path string, depth int) (protoreflect.Value, bool) {
	if f.Message() == nil {
		return d.scalar(node, f, path)
	}
	v := empty(f)
	if f.Message().FullName() == "google.protobuf.Duration" {
		return v, d.duration(node, v.Message(), path)
	}
	d.message(node, v.Message(), path, depth)
	return v, !d.failed[path]
}

func (d *decoder) shallow(depth int, path string) bool {
	if depth <= maxDepth {
		return true
	}
	d.complain(path, "", "is nested deeper than %d levels", maxDepth)
	return false
}

func where(n *yaml.Node) position { return position{n.Line, n.Column} }
