package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/provisionr/provisionr/internal/spec"
)

// reference is the manifest's reference in Markdown.
func reference(c comments) []byte {
	var out bytes.Buffer
	out.WriteString(`# Manifest reference

<!-- Generated from proto/provisionr/v1 by internal/spec/schemagen. Change the comments there. -->

A manifest is a file of YAML documents, separated by ` + "`---`" + `. Each document is one object:

` + "```yaml" + `
apiVersion: provisionr/v1
kind: Pool
metadata:
  name: web
spec:
  size: 2
  os: {distribution: debian, release: "12"}
` + "```" + `

` + "`provisionr validate -f FILE`" + ` checks a manifest without a server; ` + "`provisionr plan -f FILE`" + ` says what it would change. Editors
check it while you write with [schema/provisionr.schema.json](schema/provisionr.schema.json), as by this first line:

` + "```yaml" + `
# yaml-language-server: $schema=https://raw.githubusercontent.com/provisionr/provisionr/main/docs/schema/provisionr.schema.json
` + "```" + `

Durations are written with a unit, as ` + "`30s`, `5m` or `1h30m`" + `. A field that is left out has its default. Fields that Provisionr
writes itself, as ` + "`status`" + `, are shown by ` + "`provisionr get -o yaml`" + ` and cannot be set; ` + "`-o manifest`" + ` leaves them out.

Kinds: `)
	kinds := spec.Kinds()
	for i, k := range kinds {
		if i > 0 {
			out.WriteString(", ")
		}
		fmt.Fprintf(&out, "[%s](#%s)", k, strings.ToLower(k))
	}
	out.WriteString("\n")
	done := map[protoreflect.FullName]bool{}
	for _, k := range kinds {
		section(&out, kindDescriptor(k), c, done)
	}
	return out.Bytes()
}

// section writes a message and then, depth first, the messages of its fields that were not written yet.
func section(out *bytes.Buffer, m protoreflect.MessageDescriptor, c comments, done map[protoreflect.FullName]bool) {
	if done[m.FullName()] {
		return
	}
	done[m.FullName()] = true
	level := "##"
	if !slices.Contains(spec.Kinds(), string(m.Name())) {
		level = "###"
	}
	fmt.Fprintf(out, "\n%s %s\n\n", level, m.Name())
	if text := c.message(m); text != "" {
		fmt.Fprintf(out, "%s\n\n", text)
	}
	for _, rule := range messageRules(m) {
		fmt.Fprintf(out, "Rule: %s\n\n", rule)
	}
	out.WriteString("| field | type | meaning |\n|---|---|---|\n")
	var below []protoreflect.MessageDescriptor
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if spec.OutputOnly(f) {
			continue
		}
		required := ""
		if r := fieldRules(f); r.GetRequired() || r.GetString().HasConst() || r.GetRepeated().GetMinItems() > 0 {
			required = " **Required.**"
		}
		meaning := strings.ReplaceAll(strings.ReplaceAll(c.field(f), "\n", " "), "|", `\|`)
		fmt.Fprintf(out, "| `%s` | %s | %s%s |\n", f.JSONName(), typeOf(f), meaning, required)
		if d := f.Message(); d != nil && !f.IsMap() && !strings.HasPrefix(string(d.FullName()), "google.") {
			below = append(below, d)
		}
	}
	for _, d := range below {
		section(out, d, c, done)
	}
}

func typeOf(f protoreflect.FieldDescriptor) string {
	if f.IsMap() {
		return "keys with " + scalarType(f.MapValue()) + " values"
	}
	if f.IsList() {
		return "list of " + scalarType(f)
	}
	return scalarType(f)
}

func scalarType(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.MessageKind:
		if f.Message().FullName() == "google.protobuf.Duration" {
			return "duration"
		}
		return fmt.Sprintf("[%s](#%s)", f.Message().Name(), strings.ToLower(string(f.Message().Name())))
	case protoreflect.EnumKind:
		return "`" + strings.Join(spec.EnumNames(f.Enum()), "`, `") + "`"
	case protoreflect.StringKind:
		return "text"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.DoubleKind:
		return "number"
	}
	return "whole number"
}
