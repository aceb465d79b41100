package spec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"
)

// Marshal writes messages as YAML documents, their fields in the order of the proto file. An Object is written as
// what it holds. Enums, durations and times are written as in manifests.
func Marshal(messages ...proto.Message) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	for _, m := range messages {
		if err := encoder.Encode(node(unwrap(m).ProtoReflect(), false)); err != nil {
			return nil, err
		}
	}
	if err := encoder.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Manifest writes objects as Marshal does, without the fields that users cannot write: the result can be applied.
func Manifest(objects ...*provisionrv1.Object) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	for _, o := range objects {
		if err := encoder.Encode(node(unwrap(o).ProtoReflect(), true)); err != nil {
			return nil, err
		}
	}
	if err := encoder.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// MarshalJSON writes a message as JSON with the same content as Marshal, indented by two spaces, ending in a newline.
func MarshalJSON(m proto.Message) ([]byte, error) {
	var compact, out bytes.Buffer
	if err := writeJSON(&compact, node(unwrap(m).ProtoReflect(), false)); err != nil {
		return nil, err
	}
	if err := json.Indent(&out, compact.Bytes(), "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func unwrap(m proto.Message) proto.Message {
	if o, ok := m.(*provisionrv1.Object); ok {
		if inner := Message(o); inner != nil {
			return inner
		}
	}
	return m
}

func mapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"} }

func word(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: strTag, Value: s} }

// node turns a message into a tree; written leaves out what users cannot write.
func node(m protoreflect.Message, written bool) *yaml.Node {
	out := mapping()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) || written && OutputOnly(f) {
			continue
		}
		out.Content = append(out.Content, word(f.JSONName()), fieldNode(m.Get(f), f, written))
	}
	return out
}

func fieldNode(v protoreflect.Value, f protoreflect.FieldDescriptor, written bool) *yaml.Node {
	switch {
	case f.IsList():
		out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for i := range v.List().Len() {
			out.Content = append(out.Content, valueNode(v.List().Get(i), f, written))
		}
		return out
	case f.IsMap():
		out := mapping()
		var keys []string
		for k := range v.Map().Range {
			keys = append(keys, k.String())
		}
		slices.Sort(keys)
		for _, k := range keys {
			value := v.Map().Get(protoreflect.ValueOfString(k).MapKey())
			out.Content = append(out.Content, word(k), valueNode(value, f.MapValue(), written))
		}
		return out
	}
	return valueNode(v, f, written)
}

func valueNode(v protoreflect.Value, f protoreflect.FieldDescriptor, written bool) *yaml.Node {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		switch t := v.Message().Interface().(type) {
		case *durationpb.Duration:
			return word(FormatDuration(t.AsDuration()))
		case *timestamppb.Timestamp:
			return word(t.AsTime().UTC().Format(time.RFC3339Nano))
		}
		return node(v.Message(), written)
	case protoreflect.StringKind:
		n := word(v.String())
		if strings.Contains(n.Value, "\n") {
			n.Style = yaml.LiteralStyle
		}
		return n
	case protoreflect.BytesKind:
		return word(base64.StdEncoding.EncodeToString(v.Bytes()))
	case protoreflect.BoolKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: boolTag, Value: strconv.FormatBool(v.Bool())}
	case protoreflect.EnumKind:
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			return word(EnumName(e))
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: intTag, Value: strconv.Itoa(int(v.Enum()))}
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: floatTag, Value: strconv.FormatFloat(v.Float(), 'g', -1, 64)}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: intTag, Value: v.String()}
}

// FormatDuration writes a duration without parts that are zero: 2m, not 2m0s.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// writeJSON writes a tree that node made.
func writeJSON(out *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.MappingNode:
		out.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := writeJSON(out, n.Content[i]); err != nil {
				return err
			}
			out.WriteByte(':')
			if err := writeJSON(out, n.Content[i+1]); err != nil {
				return err
			}
		}
		out.WriteByte('}')
		return nil
	case yaml.SequenceNode:
		out.WriteByte('[')
		for i, c := range n.Content {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := writeJSON(out, c); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	}
	if n.Tag != strTag {
		out.WriteString(n.Value)
		return nil
	}
	text, err := json.Marshal(n.Value)
	if err != nil {
		return err
	}
	out.Write(text)
	return nil
}
