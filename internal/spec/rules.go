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
		if message, hint, ok := patternWords(field, value, v.RuleValue.String()); ok {
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
	case "string.prefix":
		return fmt.Sprintf("must begin with %s", limit), "paste the ASCII-armoured public key of the archive (gpg --armor --export)"
	case "string.ip_prefix":
		if p, err := netip.ParsePrefix(value); err == nil {
			return show(value) + " has bits set after its prefix", "as " + p.Masked().String()
		}
		return fmt.Sprintf("must be a range of addresses, not %s", show(value)), `as "10.88.0.0/24"`
	case "string.ip":
		return fmt.Sprintf("must be an IPv4 or IPv6 address, not %s", show(value)), ""
	case "repeated.min_items":
		return fmt.Sprintf("needs at least %s item", limit), requiredHint(field)
	case "repeated.max_items", "map.max_pairs":
		return fmt.Sprintf("has more than %s items", limit), ""
	case "repeated.unique":
		return "has an item twice", ""
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

func requiredHint(f protoreflect.FieldDescriptor) string {
	if f == nil {
		return ""
	}
	return map[protoreflect.Name]string{
		"os":       `as os: {distribution: debian, release: "12"}`,
		"metadata": "as metadata: {name: web}",
		"name":     "every object has a name",
		"role":     "viewer, operator or admin",
		"ports":    `as ports: ["80"]`,
		"from":     "any, network, self, pool:NAME, an address or a CIDR",
		"cidr":     "as cidr: 10.88.0.0/24",
		"domain":   "as domain: provisionr.internal",
		"release":  `as release: "12"`,
		"region":   "as region: eu-central-1",
		"project":  "as project: my-project-123456",
	}[f.Name()]
}

// patternWords says in words what a pattern asks for.
func patternWords(f protoreflect.FieldDescriptor, value, pattern string) (message, hint string, ok bool) {
	words := map[protoreflect.FullName][2]string{
		"Repository.uris":       {"is not an http or https address", ""},
		"Package.name":          {"is not a package name", `small letters, digits, "+", "-" and "."; a version goes into version:`},
		"Package.version":       {"is not a package version", `as "3.8.0-11+deb12u2"`},
		"File.path":             {"is not an absolute path of a file", "as /etc/motd"},
		"File.mode":             {"is not an octal mode", `as "0644"`},
		"UserAccount.shell":     {"is not an absolute path", "as /bin/bash"},
		"Ntp.servers":           {"is not a host name or address", ""},
		"FirewallRule.ports":    {"is not a port or range of ports", `as "80" or "8000-8010"`},
		"Service.name":          {"is not the name of a unit", "as nginx or nginx.service"},
		"Service.restart_on":    {"is not an absolute path", "list the paths of files of this pool"},
		"PoolSpec.variables":    {"is not a variable name", "letters, digits and _, not beginning with a digit"},
		"NetworkSpec.gateway":   {"is not an address", ""},
		"ZoneSpec.domain":       {"is not a domain name of at least two labels in small letters", "as provisionr.internal, without a final dot"},
		"Metadata.labels":       {"is not a label", "letters, digits, -, _, . and /, at most 63"},
		"Repository.name":       {"is not a repository name", "small letters, digits, -, _ and ."},
		"Repository.suites":     {"is not a suite", "as bookworm"},
		"Repository.components": {"is not a component", "as main"},
		"Endpoint.url":          {"is not an http or https address", "as https://cloud.example.com:8443"},
		"AwsProvider.region":    {"is not a region", "as eu-central-1"},
		"AwsProvider.role_arn":  {"is not the ARN of a role", "as arn:aws:iam::123456789012:role/provisionr"},
		"GceProvider.project":   {"is not the id of a project", "the id, not the name or number, as my-project-123456"},
		"GceProvider.region":    {"is not a region", "as europe-west3"},
		"Image.parameter":       {"is not the name of a parameter", "as /aws/service/debian/release/12/latest/amd64"},
		"Image.url":             {"is neither an http or https address nor an absolute path", "as https://images.example.com/debian-12.qcow2"},
		"Image.sha256":          {"is not a SHA-256 hash", "64 hexadecimal digits in small letters, as `sha256sum FILE` prints"},
		"Spot.max_price":        {"is not a price for an hour", `as "0.045", in the provider's currency, without its name`},
	}
	if w, ok := words[protoreflect.FullName(f.Parent().Name()+"."+f.Name())]; ok {
		return show(value) + " " + w[0], w[1], true
	}
	switch {
	case pattern == labelPattern:
		hint := "small letters, digits and hyphens, beginning and ending with a letter or digit"
		if label := toLabel(value); label != "" {
			hint = "as " + label
		}
		return fmt.Sprintf("%s is not a DNS label", show(value)), hint, true
	case pattern == namePattern, f.Name() == "owner", f.Name() == "group":
		return fmt.Sprintf("%s is not an account name", show(value)), "small letters, digits, _ and -, beginning with a letter", true
	}
	return "", "", false
}

// toLabel makes a DNS label of what was written, or "" where nothing is left.
func toLabel(s string) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		case r == '_' || r == '.' || r == ' ' || r == '-':
			return '-'
		}
		return -1
	}, s)
	return strings.Trim(mapped[:min(len(mapped), 63)], "-")
}
