package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

// annotated checks the rules that the messages are annotated with.
func annotated(d *document) {
	message := Message(d.object)
	err := protovalidate.Validate(message)
	var violations *protovalidate.ValidationError
	switch {
	case err == nil:
	case errors.As(err, &violations):
		for _, v := range violations.Violations {
			path, field := locate(message, v.Proto)
			if v.Proto.GetRule() == nil {
				field = nil // a rule of a message or oneof as a whole
			}
			if field == nil && d.misspelt[path] {
				continue
			}
			text, hint := explain(v, field)
			d.complain(path, hint, "%s", text)
		}
	default:
		d.complain("", "", "cannot be checked: %v", err)
	}
}

// locate returns the manifest path of a violation and the field that it is about; the field is nil for a message rule.
func locate(message proto.Message, v *validate.Violation) (string, protoreflect.FieldDescriptor) {
	var (
		path  string
		field protoreflect.FieldDescriptor
	)
	m := message.ProtoReflect().Descriptor()
	for _, e := range v.GetField().GetElements() {
		if m == nil {
			break
		}
		if m.Oneofs().ByName(protoreflect.Name(e.GetFieldName())) != nil {
			return path, nil // a oneof has no field of its own in a manifest
		}
		name := e.GetFieldName()
		if field = m.Fields().ByNumber(protoreflect.FieldNumber(e.GetFieldNumber())); field != nil {
			name = field.JSONName()
			m = field.Message()
		}
		path = join(path, name)
		switch s := e.GetSubscript().(type) {
		case *validate.FieldPathElement_Index:
			path = at(path, int(s.Index))
		case *validate.FieldPathElement_StringKey:
			path = under(path, s.StringKey)
		}
	}
	return path, field
}

const (
	labelPattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
	namePattern  = "^[a-z_][a-z0-9_-]{0,31}$"
)

// explain words a violation for a person. The field's own words come first, then those of the rule.
func explain(v *protovalidate.Violation, field protoreflect.FieldDescriptor) (message, hint string) {
	rule := v.Proto.GetRuleId()
	if field == nil {
		if rule == "required" {
			return "says nothing of its type", "give one of the fields that say it, as local: {}"
		}
		return v.Proto.GetMessage(), ""
	}
	value := fmt.Sprint(v.FieldValue.Interface())
	if d, ok := v.FieldValue.Interface().(protoreflect.Message); ok {
		if d, ok := d.Interface().(*durationpb.Duration); ok {
			return durationWords(d.AsDuration(), field), ""
		}
	}
	if value == "" && (rule == "string.in" || rule == "string.min_len") && !field.IsList() {
		return "is missing", requiredHint(field)
	}
	if field != nil && strings.HasSuffix(rule, ".pattern") {
		if message, hint, ok := patternWords(field, value, v.RuleValue.String(), v.Proto.GetForKey()); ok {
			return message, hint
		}
	}
	switch limit := v.RuleValue; rule {
	case "required":
		return "is missing", requiredHint(field)
	case "string.const":
		return fmt.Sprintf("must be %s, not %s", limit.String(), show(value)), ""
	case "string.in":
		return fmt.Sprintf("must be %s, not %s", oneOf(choices(limit)), show(value)), near(value, choices(limit))
	case "string.max_len", "string.max_bytes":
		return fmt.Sprintf("is %d bytes long, but at most %s are allowed", len(value), limit), ""
	case "string.min_len":
		return "must not be empty", ""
	case "string.ip_prefix":
		if p, err := netip.ParsePrefix(value); err == nil {
			return show(value) + " has bits set after its prefix", "as " + p.Masked().String()
		}
		return fmt.Sprintf("must be a range of addresses, not %s", show(value)), `as "10.88.0.0/24"`
	case "string.ip":
		return fmt.Sprintf("must be an IPv4 or IPv6 address, not %s", show(value)), ""
	case "string.ip_with_prefixlen":
		return fmt.Sprintf("must be an address with the length of its prefix, not %s", show(value)), `as "192.0.2.7/24"`
	case "repeated.min_items":
		return fmt.Sprintf("needs at least %s item", limit), requiredHint(field)
	case "repeated.max_items", "map.max_pairs":
		return fmt.Sprintf("has more than %s items", limit), ""
	case "repeated.unique":
		return "has an item twice", ""
	case "uint32.gte_lte", "uint32.gte":
		if r, err := protovalidate.ResolveFieldRules(field); err == nil {
			return fmt.Sprintf("is %s, but must be %d to %d", value, r.GetUint32().GetGte(), r.GetUint32().GetLte()), ""
		}
	case "uint32.lte":
		return fmt.Sprintf("is %s, but the most is %s", value, limit), ""
	case "enum.not_in":
		return "is missing", requiredHint(field)
	}
	return strings.TrimPrefix(v.Proto.GetMessage(), "value "), ""
}

// durationWords tells the bounds of a duration field.
func durationWords(d time.Duration, field protoreflect.FieldDescriptor) string {
	var bounds []string
	if rules, err := protovalidate.ResolveFieldRules(field); err == nil {
		r := rules.GetDuration()
		if r.GetGte() != nil {
			bounds = append(bounds, "at least "+FormatDuration(r.GetGte().AsDuration()))
		}
		if r.GetGt() != nil {
			bounds = append(bounds, "more than "+FormatDuration(r.GetGt().AsDuration()))
		}
		if r.GetLte() != nil {
			bounds = append(bounds, "at most "+FormatDuration(r.GetLte().AsDuration()))
		}
	}
	return fmt.Sprintf("is %s, but must be %s", FormatDuration(d), strings.Join(bounds, " and "))
}

// choices are the values of an `in` rule but the empty one, which stands for the default.
func choices(v protoreflect.Value) []string {
	var out []string
	for i := range v.List().Len() {
		if s := v.List().Get(i).String(); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func near(value string, names []string) string {
	if n := nearest(value, names); n != "" {
		return "did you mean " + n + "?"
	}
	return ""
}
