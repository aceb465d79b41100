package spec

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// describe says what a node is, for "must be X, not Y".
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case nullTag:
		return "nothing"
	case strTag:
		return "the text " + show(n.Value)
	case intTag, floatTag:
		return "the number " + n.Value
	case boolTag:
		return "the truth value " + n.Value
	case timestampTag:
		return "the date " + n.Value
	}
	return "a value with the tag " + n.ShortTag()
}

// scalar decodes a value that is no message.
func (d *decoder) scalar(n *yaml.Node, f protoreflect.FieldDescriptor, path string) (protoreflect.Value, bool) {
	if n.Kind != yaml.ScalarNode {
		d.complain(path, "", "must be %s, not %s", typeName(f), describe(n))
		return protoreflect.Value{}, false
	}
	switch f.Kind() {
	case protoreflect.StringKind:
		return d.text(n, path)
	case protoreflect.BoolKind:
		return d.truth(n, path)
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Int32Kind, protoreflect.Int64Kind:
		return d.integer(n, f, path)
	case protoreflect.DoubleKind:
		return d.float(n, path)
	case protoreflect.EnumKind:
		return d.enum(n, f, path)
	}
	d.complain(path, "", "cannot be written in a manifest")
	return protoreflect.Value{}, false
}

func typeName(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.StringKind:
		return "a text"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.DoubleKind:
		return "a number"
	case protoreflect.EnumKind:
		return oneOf(EnumNames(f.Enum()))
	}
	return "a whole number"
}

func (d *decoder) text(n *yaml.Node, path string) (protoreflect.Value, bool) {
	switch n.ShortTag() {
	case strTag:
		if strings.ContainsRune(n.Value, '\x00') {
			d.complain(path, "", "must not hold a zero byte")
			return protoreflect.Value{}, false
		}
		return protoreflect.ValueOfString(n.Value), true
	case nullTag:
		d.complain(path, `write "" for an empty text, or remove the field`, "must be a text, not nothing")
	case intTag, floatTag, boolTag, timestampTag:
		d.complain(path, "write "+strconv.Quote(n.Value)+" in quotes", "must be a text, not %s", describe(n))
	default:
		d.complain(path, "remove the tag", "must be a text, not %s", describe(n))
	}
	return protoreflect.Value{}, false
}

func (d *decoder) truth(n *yaml.Node, path string) (protoreflect.Value, bool) {
	if n.ShortTag() == boolTag {
		return protoreflect.ValueOfBool(strings.EqualFold(n.Value, "true")), true
	}
	hint := ""
	switch strings.ToLower(n.Value) {
	case "yes", "on", "y", "true", "1":
		hint = "write true without quotes"
	case "no", "off", "n", "false", "0":
		hint = "write false without quotes"
	}
	d.complain(path, hint, "must be true or false, not %s", describe(n))
	return protoreflect.Value{}, false
}

func (d *decoder) integer(n *yaml.Node, f protoreflect.FieldDescriptor, path string) (protoreflect.Value, bool) {
	if n.ShortTag() != intTag {
		hint := ""
		if _, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			hint = "remove the quotes"
		}
		d.complain(path, hint, "must be a whole number, not %s", describe(n))
		return protoreflect.Value{}, false
	}
	if strings.HasPrefix(n.Value, "-") {
		if f.Kind() == protoreflect.Uint32Kind || f.Kind() == protoreflect.Uint64Kind {
			d.complain(path, "", "must not be negative, but is %s", n.Value)
			return protoreflect.Value{}, false
		}
	}
	if f.Kind() == protoreflect.Int32Kind || f.Kind() == protoreflect.Int64Kind {
		v, err := strconv.ParseInt(n.Value, 10, bits(f))
		if err != nil {
			d.notNumber(n, err, path)
			return protoreflect.Value{}, false
		}
		if bits(f) == 32 {
			return protoreflect.ValueOfInt32(int32(v)), true
		}
		return protoreflect.ValueOfInt64(v), true
	}
	v, err := strconv.ParseUint(n.Value, 10, bits(f))
	if err != nil {
		d.notNumber(n, err, path)
		return protoreflect.Value{}, false
	}
	if bits(f) == 32 {
		return protoreflect.ValueOfUint32(uint32(v)), true
	}
	return protoreflect.ValueOfUint64(v), true
}

func (d *decoder) notNumber(n *yaml.Node, err error, path string) {
	if errors.Is(err, strconv.ErrRange) {
		d.complain(path, "", "is too large: %s", n.Value)
		return
	}
	d.complain(path, "write it in decimal digits", "must be a whole number, not %s", n.Value)
}

func bits(f protoreflect.FieldDescriptor) int {
	if f.Kind() == protoreflect.Uint32Kind || f.Kind() == protoreflect.Int32Kind {
		return 32
	}
	return 64
}

func (d *decoder) float(n *yaml.Node, path string) (protoreflect.Value, bool) {
	if tag := n.ShortTag(); tag == intTag || tag == floatTag {
		v, err := strconv.ParseFloat(n.Value, 64)
		if err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
			return protoreflect.ValueOfFloat64(v), true
		}
	}
	d.complain(path, "", "must be a number, not %s", describe(n))
	return protoreflect.Value{}, false
}

func (d *decoder) enum(n *yaml.Node, f protoreflect.FieldDescriptor, path string) (protoreflect.Value, bool) {
	values := f.Enum().Values()
	for i := range values.Len() {
		if v := values.Get(i); v.Number() != 0 && EnumName(v) == n.Value {
			return protoreflect.ValueOfEnum(v.Number()), true
		}
	}
	names := EnumNames(f.Enum())
	hint := ""
	if near := nearest(n.Value, names); near != "" {
		hint = "did you mean " + near + "?"
	}
	d.complain(path, hint, "must be %s, not %s", oneOf(names), describe(n))
	return protoreflect.Value{}, false
}

// EnumName is how an enum value is written in a manifest: without the enum's own name, in small letters.
func EnumName(v protoreflect.EnumValueDescriptor) string {
	values := v.Parent().(protoreflect.EnumDescriptor).Values()
	prefix := strings.TrimSuffix(string(values.ByNumber(0).Name()), "UNSPECIFIED")
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(string(v.Name()), prefix), "_", "-"))
}

// EnumNames are the names of all values of an enum but the unspecified one.
func EnumNames(e protoreflect.EnumDescriptor) []string {
	var names []string
	for i := range e.Values().Len() {
		if v := e.Values().Get(i); v.Number() != 0 {
			names = append(names, EnumName(v))
		}
	}
	return names
}

func (d *decoder) duration(n *yaml.Node, m protoreflect.Message, path string) bool {
	const form = `write a number with its unit, as "30s", "5m" or "1h30m"`
	if n.Kind != yaml.ScalarNode || n.ShortTag() != strTag {
		d.complain(path, form, "must be a duration, not %s", describe(n))
		return false
	}
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		d.complain(path, form, "must be a duration, not %s", show(n.Value))
		return false
	}
	out, ok := m.Interface().(*durationpb.Duration)
	if !ok {
		d.complain(path, "", "cannot be written in a manifest")
		return false
	}
	p := durationpb.New(v)
	out.Seconds, out.Nanos = p.Seconds, p.Nanos
	return true
}
