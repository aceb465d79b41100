package main

import (
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/reflect/protoreflect"

	provisionrv1 "github.com/provisionr/provisionr/proto/provisionr/v1"

	"github.com/provisionr/provisionr/internal/spec"
)

const durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`

// object is a JSON object; package encoding/json writes its keys in order.
type object = map[string]any

// jsonSchema is the schema of one manifest document (JSON Schema draft 2020-12).
func jsonSchema(c comments) object {
	defs, branches := object{}, []any{}
	for _, kind := range spec.Kinds() {
		addDefinition(defs, kindDescriptor(kind), c)
		branches = append(branches, object{
			"if":   object{"properties": object{"kind": object{"const": kind}}, "required": []string{"kind"}},
			"then": object{"$ref": "#/$defs/" + kind},
		})
	}
	return object{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"$id":         "https://github.com/provisionr/provisionr/docs/schema/provisionr.schema.json",
		"title":       "Provisionr manifest",
		"description": "One document of a manifest for `provisionr apply -f`.",
		"type":        "object",
		"required":    []string{"apiVersion", "kind", "metadata", "spec"},
		"properties":  object{"apiVersion": object{"const": spec.APIVersion}, "kind": object{"enum": spec.Kinds()}},
		"allOf":       branches,
		"$defs":       defs,
	}
}

// kindDescriptor finds a kind's message among the fields of Object.
func kindDescriptor(kind string) protoreflect.MessageDescriptor {
	fields := (&provisionrv1.Object{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if m := fields.Get(i).Message(); string(m.Name()) == kind {
			return m
		}
	}
	return nil
}

func addDefinition(defs object, m protoreflect.MessageDescriptor, c comments) {
	name := string(m.Name())
	if _, ok := defs[name]; ok {
		return
	}
	def := object{"type": "object", "additionalProperties": false}
	defs[name] = def // before the fields, which may refer to it
	properties, required := object{}, []string{}
	fields := m.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if spec.OutputOnly(f) {
			continue
		}
		rules := fieldRules(f)
		property := fieldSchema(defs, f, rules, c)
		if text := c.field(f); text != "" {
			property["description"] = text
		}
		properties[f.JSONName()] = property
		if rules.GetRequired() || rules.GetString().HasConst() || rules.GetRepeated().GetMinItems() > 0 {
			required = append(required, f.JSONName())
		}
	}
	def["properties"] = properties
	if len(required) > 0 {
		def["required"] = required
	}
	if text := strings.Join(append([]string{c.message(m)}, messageRules(m)...), " Rule: "); text != "" {
		def["description"] = text
	}
}

func fieldSchema(defs object, f protoreflect.FieldDescriptor, rules *validate.FieldRules, c comments) object {
	switch {
	case f.IsMap():
		r := rules.GetMap()
		out := object{"type": "object", "additionalProperties": scalarSchema(f.MapValue(), r.GetValues())}
		if p := r.GetKeys().GetString().GetPattern(); p != "" {
			out["propertyNames"] = object{"pattern": p}
		}
		if r.GetMaxPairs() > 0 {
			out["maxProperties"] = r.GetMaxPairs()
		}
		return out
	case f.IsList():
		r := rules.GetRepeated()
		out := object{"type": []string{"array", "null"}, "items": itemSchema(defs, f, r.GetItems(), c)}
		if r.GetMinItems() > 0 {
			out["minItems"], out["type"] = r.GetMinItems(), "array"
		}
		if r.GetMaxItems() > 0 {
			out["maxItems"] = r.GetMaxItems()
		}
		if r.GetUnique() {
			out["uniqueItems"] = true
		}
		return out
	}
	return itemSchema(defs, f, rules, c)
}

func itemSchema(defs object, f protoreflect.FieldDescriptor, rules *validate.FieldRules, c comments) object {
	if f.Message() == nil {
		return scalarSchema(f, rules)
	}
	if f.Message().FullName() == "google.protobuf.Duration" {
		return object{"type": "string", "pattern": durationPattern}
	}
	addDefinition(defs, f.Message(), c)
	return object{"$ref": "#/$defs/" + string(f.Message().Name())}
}

func scalarSchema(f protoreflect.FieldDescriptor, rules *validate.FieldRules) object {
	switch f.Kind() {
	case protoreflect.StringKind:
		return stringSchema(rules.GetString())
	case protoreflect.BoolKind:
		return object{"type": "boolean"}
	case protoreflect.EnumKind:
		return object{"enum": spec.EnumNames(f.Enum())}
	case protoreflect.DoubleKind:
		out := object{"type": "number"}
		if r := rules.GetDouble(); r.HasGte() {
			out["minimum"] = r.GetGte()
		}
		if r := rules.GetDouble(); r.HasLte() {
			out["maximum"] = r.GetLte()
		}
		return out
	}
	out := object{"type": "integer", "minimum": 0}
	if r := rules.GetUint32(); r.HasLte() {
		out["maximum"] = r.GetLte()
	}
	if r := rules.GetUint32(); r.HasGte() {
		out["minimum"] = r.GetGte()
	}
	return out
}

func stringSchema(r *validate.StringRules) object {
	out := object{"type": "string"}
	if r.HasConst() {
		return object{"const": r.GetConst()}
	}
	if len(r.GetIn()) > 0 {
		return object{"enum": r.GetIn()}
	}
	if r.HasPattern() {
		out["pattern"] = r.GetPattern()
	}
	if r.HasPrefix() {
		out["pattern"] = "^" + r.GetPrefix()
	}
	if r.HasMinLen() {
		out["minLength"] = r.GetMinLen()
	}
	if most := max(r.GetMaxLen(), r.GetMaxBytes()); most > 0 {
		out["maxLength"] = most // a text of so many bytes has at most so many characters
	}
	return out
}

func fieldRules(f protoreflect.FieldDescriptor) *validate.FieldRules {
	rules, err := protovalidate.ResolveFieldRules(f)
	if err != nil || rules == nil {
		return &validate.FieldRules{}
	}
	return rules
}

// messageRules are the words of the rules about a message as a whole.
func messageRules(m protoreflect.MessageDescriptor) []string {
	rules, err := protovalidate.ResolveMessageRules(m)
	if err != nil {
		return nil
	}
	var out []string
	for _, r := range rules.GetCel() {
		out = append(out, r.GetMessage()+".")
	}
	return out
}
